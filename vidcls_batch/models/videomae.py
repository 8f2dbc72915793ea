"""VideoMAE (Tong et al. 2022, arXiv:2203.12602): a plain ViT over tubelets, pre-trained as a masked autoencoder."""

from functools import partial

from vidcls_batch.models.recipes import IMAGENET_MEAN, IMAGENET_STD, square
from vidcls_batch.models.transformers_video import TransformersVideoFamily
from vidcls_batch.types import Sampling

FAMILY = TransformersVideoFamily(
    model_type="videomae",
    model_class="VideoMAEForVideoClassification",
    frames_key="num_frames",
    default_frames=16,
    size_key="image_size",
    default_size=224,
    sampling=partial(Sampling, rule="stride", stride=4),
    recipe=partial(square, mean=IMAGENET_MEAN, std=IMAGENET_STD),
)
