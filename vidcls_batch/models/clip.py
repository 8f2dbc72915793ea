"""CLIP (Radford et al. 2021, arXiv:2103.00020) over single frames, averaged over the clip."""

from functools import partial

from vidcls_batch.models.dual_encoder import DualEncoderFamily, encode_frames
from vidcls_batch.models.recipes import CLIP_MEAN, CLIP_STD, square

FAMILY = DualEncoderFamily(
    model_types=("clip",),
    model_classes={"clip": "CLIPModel"},
    default_frames=8,
    fixed_frames=False,
    default_size=224,
    max_tokens=77,
    pad_to_max=False,
    mask_padding=True,
    recipe=partial(square, mean=CLIP_MEAN, std=CLIP_STD, resample="bicubic"),
    encode=encode_frames,
)
