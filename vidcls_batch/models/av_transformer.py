"""This project's fused audio-visual transformer as a family; the network itself is in av_transformer_network.py."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import FamilyDescription, LoadedNetwork, Scores, Sound
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.input_spec import read_input_spec, resolve_sampling
from vidcls_batch.models.log_mel import LogMelInput, kaldi_mel
from vidcls_batch.models.pretrained import load_pretrained
from vidcls_batch.models.recipes import AUDIOSET_MEAN, AUDIOSET_STD, KINETICS_MEAN, KINETICS_STD, square
from vidcls_batch.models.torchvision_import import prepare_transformers
from vidcls_batch.models.transformers_video import read_config, read_labels, read_size
from vidcls_batch.types import Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MODEL_TYPE = "vidcls-av-transformer"  # av_transformer_network.MODEL_TYPE, without its imports


@dataclass(frozen=True, slots=True)
class AvTransformerFamily:
    """Checkpoints of `jobs/finetune.py`; a clip without sound is scored by its frames."""

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """Sizes, sound and labels from config.json, preprocessing of frames from the processor's file."""
        config = read_config(checkpoint, model_types=(_MODEL_TYPE,))
        frames, size = read_size(config, "num_frames", 16), read_size(config, "image_size", 224)
        resolved = resolve_sampling(Sampling(num_frames=frames), sampling, fixed_frames=True)
        recipe = square(resolved, size, mean=KINETICS_MEAN, std=KINETICS_STD)
        spec, source = read_input_spec(checkpoint, recipe=recipe)
        count, labels = read_labels(config)
        return FamilyDescription(
            input=spec,
            sound=read_heard(checkpoint).window,
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
        prepare_transformers()
        from vidcls_batch.models.av_transformer_network import AvTransformerForVideoClassification

        heard = read_heard(checkpoint)
        model = cast(
            AvTransformerForVideoClassification,
            load_pretrained(checkpoint, model_class=AvTransformerForVideoClassification),
        )
        num_parameters = sum(p.numel() for p in model.parameters())
        model = model.to(device=device, dtype=dtype)

        def network(pixels: "Tensor", sound: Sound) -> Scores:
            embeddings = model.embed(pixels, heard.features(sound).to(dtype), sound.lengths > 0)
            return Scores(logits=model.classifier(embeddings), embeddings=embeddings)

        return LoadedNetwork(network=network, num_parameters=num_parameters)


def read_heard(checkpoint: Checkpoint) -> LogMelInput:
    """The picture of sound that the checkpoint's network takes. Raises CheckpointError."""
    config = read_config(checkpoint, model_types=(_MODEL_TYPE,))
    mean, std = config.get("sound_mean", AUDIOSET_MEAN), config.get("sound_std", AUDIOSET_STD)
    if not isinstance(mean, int | float) or not isinstance(std, int | float) or std <= 0:
        raise CheckpointError(f"{checkpoint.name}: config.json: sound_mean {mean!r}, sound_std {std!r} are no numbers")
    rate, mels = read_size(config, "sample_rate", 16_000), read_size(config, "num_mel_bins", 128)
    return LogMelInput(
        mel=kaldi_mel(sample_rate=rate, num_mels=mels),
        num_frames=read_size(config, "sound_frames", 1024),
        mean=float(mean),
        std=float(std),
    )


FAMILY = AvTransformerFamily()
