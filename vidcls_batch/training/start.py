"""Where training starts: a model, what it sees, and its tokenizer, from a checkpoint or from scratch."""

import importlib
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.av_transformer import read_heard
from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.checkpoints import Checkpoint, open_checkpoint
from vidcls_batch.models.log_mel import LogMelInput
from vidcls_batch.models.registry import open_family
from vidcls_batch.training.architectures import Architecture, build_model
from vidcls_batch.training.checkpoint_folder import write_preprocessing
from vidcls_batch.training.config import InputConfig, ModelConfig
from vidcls_batch.training.contrastive import spread_texts
from vidcls_batch.training.targets import tokenize
from vidcls_batch.training.tokenizer import train_clip_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTRASTIVE_FAMILIES = frozenset({"xclip"})
_HEAD_CLASSES = {
    "videomae": "transformers:VideoMAEForVideoClassification",
    "timesformer": "transformers:TimesformerForVideoClassification",
    "xclip": "transformers:XCLIPModel",
    "av_transformer": "vidcls_batch.models.av_transformer_network:AvTransformerForVideoClassification",
}
_PREPROCESSING_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class Start:
    """A model before its first step; `tokenizer` is None for a classifier, `heard` for one that hears nothing."""

    model: "PreTrainedModel"
    spec: InputSpec
    heard: LogMelInput | None
    tokenizer: "PreTrainedTokenizerBase | None"


def prepare_start(config: ModelConfig, *, labels: Sequence[str], texts: Collection[str], folder: str | Path) -> Start:
    """The model to train, for `labels`; its preprocessing is written to `folder`, the checkpoint to be.

    From scratch, weights are drawn from torch's generator and a tokenizer is learned from `texts`. From a checkpoint, a
    classifier's head is kept where its labels are the same and drawn anew where not. Raises ConfigError or
    CheckpointError.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if config.checkpoint is not None:
        return _from_checkpoint(config, open_checkpoint(config.checkpoint), labels=labels, folder=folder)
    return _from_scratch(config, labels=labels, texts=texts, folder=folder)


def _from_scratch(config: ModelConfig, *, labels: Sequence[str], texts: Collection[str], folder: Path) -> Start:
    given = config.input or InputConfig()
    tokenizer = None
    if config.family in CONTRASTIVE_FAMILIES:
        tokenizer = train_clip_tokenizer(texts, vocab_size=config.vocab_size, max_length=config.max_tokens)
    arguments = config.architecture or {}
    model = build_model(
        config.family, Architecture(arguments=arguments, input=given, labels=labels, tokenizer=tokenizer)
    )
    if tokenizer is not None:
        spread_texts(model, torch.stack(list(tokenize(texts, tokenizer).values())))
    write_preprocessing(folder, given=given)
    model.config.save_pretrained(folder)
    started = open_checkpoint(str(folder))
    return Start(model=model, spec=_input_spec(config, started), heard=_heard(config, started), tokenizer=tokenizer)


def _from_checkpoint(config: ModelConfig, checkpoint: Checkpoint, *, labels: Sequence[str], folder: Path) -> Start:
    import transformers

    spec = _input_spec(config, checkpoint)  # first: it refuses a checkpoint of another family
    for name in _PREPROCESSING_FILES:
        if (checkpoint.path / name).is_file():
            shutil.copyfile(checkpoint.path / name, folder / name)
    contrastive = config.family in CONTRASTIVE_FAMILIES
    head = (
        {} if contrastive else {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    )
    try:
        module, _, name = _HEAD_CLASSES[config.family].partition(":")
        model, report = getattr(importlib.import_module(module), name).from_pretrained(
            checkpoint.path,
            dtype="float32",
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **head,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.path) if contrastive else None
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"cannot start from {checkpoint.name}: {error}") from error
    drawn = sorted(set(report["missing_keys"]) | {key for key, *_ in report["mismatched_keys"]})
    if body := [key for key in drawn if not key.startswith("classifier.")]:
        raise CheckpointError(f"{checkpoint.name} lacks weights of the model's body: {', '.join(body[:8])}")
    return Start(model=model, spec=spec, heard=_heard(config, checkpoint), tokenizer=tokenizer)


def _heard(config: ModelConfig, checkpoint: Checkpoint) -> LogMelInput | None:
    return read_heard(checkpoint) if config.family == "av_transformer" else None


def _input_spec(config: ModelConfig, checkpoint: Checkpoint) -> InputSpec:
    spec = open_family(config.family).describe(checkpoint, config.sampling).input
    if spec is None:
        raise CheckpointError(f"{config.family} sees no frames; training here is on frames")
    return spec
