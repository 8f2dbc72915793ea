"""AST (Gong et al. 2021, arXiv:2104.01778): a transformer over patches of a log-mel picture. It sees no frames."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import FamilyDescription, LoadedNetwork, Scores, Sound
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.input_spec import refuse_sampling
from vidcls_batch.models.log_mel import LogMelInput, kaldi_mel
from vidcls_batch.models.pretrained import load_pretrained
from vidcls_batch.models.recipes import AUDIOSET_MEAN, AUDIOSET_STD
from vidcls_batch.models.transformers_video import read_config, read_labels, read_size

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_PROCESSOR = "preprocessor_config.json"


def read_ast_input(checkpoint: Checkpoint) -> tuple[LogMelInput, str]:
    """The checkpoint's own, and the file that says so; AudioSet's where there is none. Raises CheckpointError."""
    config = read_config(checkpoint, model_types=("audio-spectrogram-transformer",))
    frames, mels = read_size(config, "max_length", 1024), read_size(config, "num_mel_bins", 128)
    facts = checkpoint.read_json(_PROCESSOR)
    own: dict[str, object] = {} if facts is None else facts
    for key, network in (("max_length", frames), ("num_mel_bins", mels)):
        if own.get(key, network) != network:
            raise CheckpointError(
                f"{checkpoint.name}: {_PROCESSOR} says {key} {own[key]}, but the network's config.json says {network}; "
                "one of the two belongs to another checkpoint"
            )
    normalises = bool(own.get("do_normalize", True))
    rate = read_size(own, "sampling_rate", 16_000)
    read = LogMelInput(
        mel=kaldi_mel(sample_rate=rate, num_mels=mels),
        num_frames=frames,
        mean=_number(own, "mean", AUDIOSET_MEAN, checkpoint) if normalises else 0.0,
        std=_number(own, "std", AUDIOSET_STD, checkpoint) if normalises else 0.5,
    )
    return read, "family recipe" if facts is None else _PROCESSOR


@dataclass(frozen=True, slots=True)
class AstFamily:
    """`ASTForAudioClassification` with its trained head; a clip without sound has no scores."""

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """Sizes and labels from config.json, preprocessing from the extractor's file."""
        refuse_sampling(sampling)
        config = read_config(checkpoint, model_types=("audio-spectrogram-transformer",))
        heard, source = read_ast_input(checkpoint)
        count, labels = read_labels(config)
        return FamilyDescription(
            input=None,
            sound=heard.window,
            preprocessing_from=source,
            zero_shot=False,
            num_outputs=count,
            labels=labels,
            embedding_dim=read_size(config, "hidden_size", 768),
        )

    def load(
        self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...], device: str, dtype: "torch.dtype"
    ) -> LoadedNetwork:
        """The whole model; `texts` is empty, the head is trained."""
        import torch

        heard, _ = read_ast_input(checkpoint)
        model = load_pretrained(checkpoint, model_class="ASTForAudioClassification")
        num_parameters = sum(p.numel() for p in model.parameters())
        model = model.to(device=device, dtype=dtype)
        head = cast("nn.Module", model.classifier)
        model.classifier = torch.nn.Identity()  # the model now gives what its head would see: the embedding

        def network(pixels: "Tensor | None", sound: Sound) -> Scores:
            embeddings = model(heard.features(sound).to(dtype)).logits
            return Scores(logits=head(embeddings), embeddings=embeddings, present=sound.lengths > 0)

        return LoadedNetwork(network=network, num_parameters=num_parameters)


def _number(facts: dict[str, object], key: str, default: float, checkpoint: Checkpoint) -> float:
    value = facts.get(key, default)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise CheckpointError(f"{checkpoint.name}: {_PROCESSOR}: {key} is {value!r}, expected a number")


FAMILY = AstFamily()
