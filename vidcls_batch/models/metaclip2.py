"""MetaCLIP 2 (Chuang et al. 2025, arXiv:2507.22062): CLIP trained on the whole world's captions, frame-pooled."""

from functools import partial

from vidcls_batch.models.dual_encoder import DualEncoderFamily, encode_frames
from vidcls_batch.models.recipes import CLIP_MEAN, CLIP_STD, square

FAMILY = DualEncoderFamily(
    model_types=("metaclip_2",),
    model_classes={"metaclip_2": "MetaClip2Model"},
    default_frames=8,
    fixed_frames=False,
    default_size=224,
    max_tokens=77,
    pad_to_max=False,
    mask_padding=True,
    recipe=partial(square, mean=CLIP_MEAN, std=CLIP_STD, resample="bicubic"),
    encode=encode_frames,
)
