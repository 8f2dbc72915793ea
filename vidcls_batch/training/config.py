"""What a fine-tuning job is told: one YAML file, read once, frozen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vidcls_batch.config import LabelSetConfig, SamplingConfig, with_overrides
from vidcls_batch.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class DataConfig(_Section):
    """The clips to learn from and to test on: two manifests, CSV or Parquet."""

    train: str = Field(description="Manifest to learn from.", min_length=1)
    evaluation: str = Field(description="Manifest the accuracy is measured on; must not share clips with `train`.")
    uri: str = Field("uri", description="Column with the clip's file.")
    label: str = Field("true_label", description="Column with the clip's label.")
    captions: tuple[str, ...] = Field(
        (),
        description="Columns with sentences that describe the clip, for a contrastive model; each batch takes one.",
    )
    vocabulary: tuple[str, ...] = Field(
        (), description="Columns whose words a tokenizer from scratch learns; default: those of `captions`."
    )
    caption_templates: tuple[str, ...] = Field(
        ("{}",), description="Sentences around a caption, each with {}; each batch takes one.", min_length=1
    )
    where: dict[str, str] = Field(
        default_factory=dict, description="Learn only from rows with these values in these columns."
    )
    cache: str = Field("runs/frame_cache", description="Folder that keeps the decoded frames.")
    decode_threads: int = Field(2, ge=1, le=128)


class InputConfig(_Section):
    """What a model made from scratch sees; a checkpoint brings its own."""

    num_frames: int = Field(8, ge=1, le=256)
    size: int = Field(64, ge=16, le=1024, description="Side of the square the frames are scaled and cropped to.")
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)


class ModelConfig(_Section):
    """Where the weights start: a checkpoint, or at random in a given architecture."""

    family: Literal["videomae", "timesformer", "xclip", "av_transformer"]
    checkpoint: str | None = Field(None, description="Hub id or local folder to start from.")
    architecture: dict[str, Any] | None = Field(
        None, description="From scratch: keyword arguments of the model's config class."
    )
    input: InputConfig | None = Field(None, description="From scratch only.")
    sampling: SamplingConfig = SamplingConfig()
    vocab_size: int = Field(1024, ge=520, description="Most tokens of a tokenizer learned from scratch.")
    max_tokens: int = Field(32, ge=8, le=512, description="Longest text of a video-text model from scratch.")

    @model_validator(mode="after")
    def _one_start(self) -> "ModelConfig":
        if (self.checkpoint is None) == (self.architecture is None):
            raise ValueError("give exactly one of checkpoint (fine-tune it) and architecture (train from scratch)")
        if self.checkpoint is not None and self.input is not None:
            raise ValueError("input belongs to a model from scratch; a checkpoint brings its own")
        return self


class AugmentationConfig(_Section):
    """Changes that leave the label true; all off by default."""

    shift: int = Field(0, ge=0, description="Largest shift of the whole clip, pixels.")
    brightness: float = Field(0.0, ge=0, le=1, description="Largest change, as a share of the range of grey levels.")
    contrast: float = Field(0.0, ge=0, lt=1, description="Factor between 1 - contrast and 1 + contrast.")
    noise: float = Field(0.0, ge=0, le=1, description="Standard deviation, as a share of the range of grey levels.")
    horizontal_flip: bool = Field(False, description="Only where left and right are no part of a label.")
    shuffle_channels: bool = Field(False, description="Only where colours are no part of a label.")


class OptimizationConfig(_Section):
    """How long and how fast to learn."""

    steps: int = Field(ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    learning_rate_factors: dict[str, float] = Field(
        default_factory=dict,
        description="Weights whose name starts so learn this many times as fast; 0 keeps them as they are.",
    )
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    seed: int = 0
    log_every: int = Field(100, ge=1)
    evaluate_every: int | None = Field(None, ge=1, description="Default: only at the end.")


class SaveConfig(_Section):
    """What the saved checkpoint looks like."""

    path: str = Field(description="Folder for the checkpoint.", min_length=1)
    half_precision: bool = Field(False, description="Store the weights as float16; they load as float32.")
    licence: str = Field("apache-2.0", description="Licence named in the model card.")
    command: str | None = Field(None, description="The command that rebuilds the checkpoint, for the model card.")


class FinetuneConfig(_Section):
    """A whole fine-tuning job."""

    output: SaveConfig
    model: ModelConfig
    label_set: LabelSetConfig
    prompt: str = Field("{}", description="Sentence around a label, with {}, when a contrastive model is evaluated.")
    data: DataConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    optimization: OptimizationConfig

    @model_validator(mode="after")
    def _captions_go_with_contrastive(self) -> "FinetuneConfig":
        if (self.model.family == "xclip") != bool(self.data.captions):
            raise ValueError("data.captions are needed for the family xclip, and only for it")
        return self


def load_finetune_config(path: str | Path, *, overrides: Sequence[str] = ()) -> FinetuneConfig:
    """Read a YAML config and apply `a.b=value` overrides. Raises ConfigError that names each wrong key."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the config {path}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} holds {type(tree).__name__}, not a mapping; start from configs/demo/finetune_videomae.yaml"
        )
    try:
        return FinetuneConfig.model_validate(with_overrides(tree, overrides))
    except ValidationError as error:
        lines = [f"  - {'.'.join(map(str, e['loc'])) or 'config'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{path} is not a valid fine-tuning config:\n" + "\n".join(lines)) from error
