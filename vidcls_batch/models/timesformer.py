"""TimeSformer (Bertasius et al. 2021, arXiv:2102.05095): attention over space and over time, one after the other."""

from functools import partial

from vidcls_batch.models.recipes import KINETICS_MEAN, KINETICS_STD, square
from vidcls_batch.models.transformers_video import TransformersVideoFamily
from vidcls_batch.types import Sampling

# Frames -> stride of the published TimeSformer, TimeSformer-HR and TimeSformer-L.
_STRIDES = {8: 32, 16: 16, 96: 4}


def _sampling(num_frames: int) -> Sampling:
    return Sampling(num_frames=num_frames, rule="stride", stride=_STRIDES.get(num_frames, max(1, 256 // num_frames)))


FAMILY = TransformersVideoFamily(
    model_type="timesformer",
    model_class="TimesformerForVideoClassification",
    frames_key="num_frames",
    default_frames=8,
    size_key="image_size",
    default_size=224,
    sampling=_sampling,
    recipe=partial(square, mean=KINETICS_MEAN, std=KINETICS_STD),
)
