"""VideoMAE (Tong et al. 2022, arXiv:2203.12602): a plain ViT over tubelets, pre-trained as a masked autoencoder."""

from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.transformers_video import TransformersVideoFamily
from vidcls_batch.types import Sampling

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _recipe(sampling: Sampling, size: int) -> InputSpec:
    return InputSpec(sampling=sampling, short_side=size, height=size, width=size, mean=IMAGENET_MEAN, std=IMAGENET_STD)


FAMILY = TransformersVideoFamily(
    model_type="videomae",
    model_class="VideoMAEForVideoClassification",
    frames_key="num_frames",
    default_frames=16,
    size_key="image_size",
    default_size=224,
    default_width=768,
    sampling=lambda frames: Sampling(num_frames=frames, rule="stride", stride=4),
    recipe=_recipe,
)
