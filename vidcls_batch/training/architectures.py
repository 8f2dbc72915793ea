"""Models from scratch: a transformers config class filled from the job's config, with random weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidcls_batch.errors import ConfigError
from vidcls_batch.training.config import InputConfig

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a model from scratch is made of."""

    arguments: Mapping[str, Any]  # keyword arguments of the transformers config class
    input: InputConfig
    labels: Sequence[str]
    tokenizer: "PreTrainedTokenizerBase | None"  # of a video-text model


def build_model(family: str, architecture: Architecture) -> "PreTrainedModel":
    """A model with random weights, drawn from torch's generator. Raises ConfigError when the arguments fit no model."""
    try:
        model = _BUILDERS[family](architecture)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.architecture is no architecture of {family}: {error}") from error
    weights = dict(model.named_parameters())
    for name in _LEARNED_POSITIONS[family]:
        _fill_with_sines(weights[name])
    return model


def _videomae(architecture: Architecture) -> "PreTrainedModel":
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    return VideoMAEForVideoClassification(VideoMAEConfig(**_classifier_arguments(architecture)))


def _timesformer(architecture: Architecture) -> "PreTrainedModel":
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    return TimesformerForVideoClassification(TimesformerConfig(**_classifier_arguments(architecture)))


def _av_transformer(architecture: Architecture) -> "PreTrainedModel":
    from vidcls_batch.models.av_transformer_network import AvTransformerConfig, AvTransformerForVideoClassification

    return AvTransformerForVideoClassification(AvTransformerConfig(**_classifier_arguments(architecture)))


def _xclip(architecture: Architecture) -> "PreTrainedModel":
    from transformers import XCLIPConfig, XCLIPModel

    tokenizer = architecture.tokenizer
    if tokenizer is None:
        raise ValueError("a video-text model needs a tokenizer")
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"image_size": architecture.input.size, "num_frames": architecture.input.num_frames}
    arguments = dict(architecture.arguments)
    text |= arguments.pop("text_config", {})
    vision |= arguments.pop("vision_config", {})
    return XCLIPModel(XCLIPConfig(text_config=text, vision_config=vision, **arguments))


def _fill_with_sines(positions: "Parameter") -> None:
    """Overwrite embeddings [..., N, D] with sines and cosines of falling frequency (Vaswani et al. 2017)."""
    import torch

    places, width = positions.shape[-2:]
    rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(places)[:, None] * rates
    sines = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
    with torch.no_grad():
        positions.copy_(sines.expand_as(positions))


def _classifier_arguments(architecture: Architecture) -> dict[str, Any]:
    return {
        "image_size": architecture.input.size,
        "num_frames": architecture.input.num_frames,
        "id2label": dict(enumerate(architecture.labels)),
        "label2id": {label: index for index, label in enumerate(architecture.labels)},
        **architecture.arguments,
    }


_BUILDERS: dict[str, Callable[[Architecture], "PreTrainedModel"]] = {
    "videomae": _videomae,
    "timesformer": _timesformer,
    "xclip": _xclip,
    "av_transformer": _av_transformer,
}

# Drawn near zero, as these models do for long pre-training, they drown in the patches: a small TimeSformer was then
# right about half of the time where VideoMAE, whose positions are sines, was right about nine in ten.
_LEARNED_POSITIONS: dict[str, tuple[str, ...]] = {
    "videomae": (),
    "timesformer": ("timesformer.embeddings.position_embeddings", "timesformer.embeddings.time_embeddings"),
    "xclip": ("vision_model.embeddings.position_embedding.weight",),
    "av_transformer": (),
}
