"""ViViT (Arnab et al. 2021, arXiv:2103.15691): joint space-time attention over tubelets; the paper's "model 1"."""

from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.recipes import HALF, square, zero_centred
from vidcls_batch.models.transformers_video import TransformersVideoFamily
from vidcls_batch.types import Sampling


def _sampling(num_frames: int) -> Sampling:
    return Sampling(num_frames=num_frames, rule="stride", stride=2)


def _recipe(sampling: Sampling, size: int) -> InputSpec:
    # The authors' code scales to -1..1 and stops there. What a checkpoint's own file adds to that is followed.
    return zero_centred(square(sampling, size, short_side=size * 256 // 224, mean=HALF, std=HALF))


FAMILY = TransformersVideoFamily(
    model_type="vivit",
    model_class="VivitForVideoClassification",
    frames_key="num_frames",
    default_frames=32,
    size_key="image_size",
    default_size=224,
    sampling=_sampling,
    recipe=_recipe,
)
