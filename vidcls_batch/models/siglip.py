"""SigLIP (Zhai et al. 2023, arXiv:2303.15343) and SigLIP 2 (Tschannen et al. 2025, arXiv:2502.14786), frame-pooled.

SigLIP 2 comes in a fixed resolution, which is SigLIP's architecture (`model_type` siglip), and as NaFlex (siglip2),
which takes patches; a run's frames are square, so NaFlex sees the largest square its number of patches allows.
"""

from typing import TYPE_CHECKING

from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.dual_encoder import DualEncoderFamily, encode_frames
from vidcls_batch.models.recipes import HALF, square, stretched
from vidcls_batch.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor, nn


def _siglip_recipe(sampling: Sampling, size: int) -> InputSpec:
    return stretched(square(sampling, size, mean=HALF, std=HALF, resample="bicubic"))


def _siglip2_recipe(sampling: Sampling, size: int) -> InputSpec:
    return stretched(square(sampling, size, mean=HALF, std=HALF))


def _encode(module: "nn.Module", pixels: "Tensor") -> "Tensor":
    if module.config.model_type != "siglip2":  # type: ignore[union-attr]
        return encode_frames(module, pixels)
    import torch
    from torch.nn.functional import normalize

    patch = int(module.config.vision_config.patch_size)  # type: ignore[union-attr, arg-type]
    images = pixels.flatten(0, 1)
    rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
    grid = images.reshape(len(images), 3, rows, patch, columns, patch)
    patches = grid.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)
    frames = module.get_image_features(  # type: ignore[operator]
        pixel_values=patches,
        pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.int32, device=patches.device),
        spatial_shapes=torch.tensor([[rows, columns]]).expand(len(images), -1),
    ).pooler_output
    return normalize(frames.float(), dim=-1).view(*pixels.shape[:2], -1).mean(dim=1)


# Trained on texts padded to 64 tokens without a mask: the padding is part of what the text tower knows.
SIGLIP = DualEncoderFamily(
    model_types=("siglip",),
    model_classes={"siglip": "SiglipModel"},
    default_frames=8,
    fixed_frames=False,
    default_size=224,
    max_tokens=64,
    pad_to_max=True,
    mask_padding=False,
    recipe=_siglip_recipe,
    encode=encode_frames,
)
SIGLIP2 = DualEncoderFamily(
    model_types=("siglip", "siglip2"),
    model_classes={"siglip": "SiglipModel", "siglip2": "Siglip2Model"},
    default_frames=8,
    fixed_frames=False,
    default_size=224,
    max_tokens=64,
    pad_to_max=True,
    mask_padding=False,
    recipe=_siglip2_recipe,
    encode=_encode,
)
