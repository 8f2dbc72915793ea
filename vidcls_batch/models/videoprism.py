"""VideoPrism (Zhao et al. 2024, arXiv:2402.13217): with a trained head, or zero-shot through its text tower (LvT)."""

from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.dual_encoder import DualEncoderFamily, encode_clips
from vidcls_batch.models.recipes import square, stretched
from vidcls_batch.models.transformers_video import TransformersVideoFamily
from vidcls_batch.types import Sampling


def _recipe(sampling: Sampling, size: int) -> InputSpec:
    spec = square(sampling, size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resample="bicubic")
    return stretched(spec)


CLASSIFIER = TransformersVideoFamily(
    model_type="videoprism_vision_model",
    model_class="VideoPrismForVideoClassification",
    frames_key="num_frames",
    default_frames=16,
    size_key="image_size",
    default_size=288,
    sampling=Sampling,
    recipe=_recipe,
)
LVT = DualEncoderFamily(
    model_types=("videoprism",),
    model_classes={"videoprism": "VideoPrismClipModel"},
    default_frames=16,
    fixed_frames=True,
    default_size=288,
    max_tokens=64,
    pad_to_max=True,
    mask_padding=True,
    recipe=_recipe,
    encode=encode_clips,
    # The model learns no scale; the authors' zero-shot example divides by this temperature.
    temperature=0.01,
)
