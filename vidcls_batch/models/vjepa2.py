"""V-JEPA 2 (Assran et al. 2025, arXiv:2506.09985): features predicted in latent space, read by an attentive probe."""

from functools import partial

from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.recipes import IMAGENET_MEAN, IMAGENET_STD, square
from vidcls_batch.models.transformers_video import TransformersVideoFamily
from vidcls_batch.types import Sampling


def _recipe(sampling: Sampling, size: int) -> InputSpec:
    return square(sampling, size, short_side=size * 256 // 224, mean=IMAGENET_MEAN, std=IMAGENET_STD)


FAMILY = TransformersVideoFamily(
    model_type="vjepa2",
    model_class="VJEPA2ForVideoClassification",
    frames_key="frames_per_clip",
    default_frames=64,
    size_key="crop_size",
    default_size=256,
    default_width=1024,
    sampling=partial(Sampling, rule="stride", stride=4),
    recipe=_recipe,
    unused="vjepa2.predictor",
)
