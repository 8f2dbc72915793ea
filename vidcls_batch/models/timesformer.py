"""TimeSformer (Bertasius et al. 2021, arXiv:2102.05095): attention over space and over time, one after the other."""

from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.transformers_video import TransformersVideoFamily
from vidcls_batch.types import Sampling

# Frames -> stride of the published TimeSformer, TimeSformer-HR and TimeSformer-L.
_STRIDES = {8: 32, 16: 16, 96: 4}


def _recipe(sampling: Sampling, size: int) -> InputSpec:
    return InputSpec(
        sampling=sampling, short_side=size, height=size, width=size, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225)
    )


FAMILY = TransformersVideoFamily(
    model_type="timesformer",
    model_class="TimesformerForVideoClassification",
    frames_key="num_frames",
    default_frames=8,
    size_key="image_size",
    default_size=224,
    default_width=768,
    sampling=lambda frames: Sampling(
        num_frames=frames, rule="stride", stride=_STRIDES.get(frames, max(1, 256 // frames))
    ),
    recipe=_recipe,
)
