"""Preprocessing as families' authors published it, for checkpoints that come without a processor file."""

from dataclasses import replace
from typing import Literal

from vidcls_batch.models.base import InputSpec
from vidcls_batch.types import Sampling

Rgb = tuple[float, float, float]

IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)
CLIP_MEAN: Rgb = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Rgb = (0.26862954, 0.26130258, 0.27577711)
HALF: Rgb = (0.5, 0.5, 0.5)
# PySlowFast's, used by TimeSformer, SlowFast, X3D, MViT.
KINETICS_MEAN: Rgb = (0.45, 0.45, 0.45)
KINETICS_STD: Rgb = (0.225, 0.225, 0.225)
# Log-mel of AudioSet, as the AST authors measured it.
AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974


def square(
    sampling: Sampling,
    size: int,
    *,
    mean: Rgb,
    std: Rgb,
    short_side: int | None = None,
    resample: Literal["bilinear", "bicubic"] = "bilinear",
) -> InputSpec:
    """The short side resized to `short_side` (default `size`), a centre square of `size`, pixels 0..1 normalised."""
    return InputSpec(
        sampling=sampling,
        short_side=short_side or size,
        height=size,
        width=size,
        mean=mean,
        std=std,
        resample=resample,
    )


def stretched(spec: InputSpec) -> InputSpec:
    """The same, but the whole frame squeezed into the square."""
    return replace(spec, fit="stretch")


def zero_centred(spec: InputSpec) -> InputSpec:
    """The same, but pixels scaled to -1..1 and not normalised further."""
    return replace(spec, scale=1 / 127.5, offset=-1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
