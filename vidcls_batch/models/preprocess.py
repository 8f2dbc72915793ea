"""From decoded frames to a network's pixels: resize, crop, normalise, batched on the frames' own device."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vidcls_batch.models.base import InputSpec


def preprocess(frames: Tensor, spec: InputSpec, *, dtype: torch.dtype) -> Tensor:
    """Frames uint8 [N, H, W, 3] to pixels `dtype` [N, 3, spec.height, spec.width]; any H and W."""
    return normalise(resize_and_crop(frames, spec), spec, dtype=dtype)


def resize_and_crop(frames: Tensor, spec: InputSpec) -> Tensor:
    """Frames uint8 [N, H, W, 3] to uint8 [N, 3, spec.height, spec.width], antialiased, within one grey level of PIL."""
    images = frames.permute(0, 3, 1, 2)  # channels-last in memory: the layout the fast CPU kernels want
    size = resized_size(images.shape[-2], images.shape[-1], spec)
    if size != tuple(images.shape[-2:]):
        images = _resize(images, size, spec.resample)
    top, left = (size[0] - spec.height) // 2, (size[1] - spec.width) // 2
    return images[..., top : top + spec.height, left : left + spec.width]


def resized_size(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Height and width before the crop; the longer side is rounded down, as PIL-based processors do."""
    if spec.fit == "stretch":
        return (spec.short_side, spec.short_side)
    if height <= width:
        return (spec.short_side, spec.short_side * width // height)
    return (spec.short_side * height // width, spec.short_side)


def normalise(images: Tensor, spec: InputSpec, *, dtype: torch.dtype) -> Tensor:
    """`(pixel * scale + offset - mean) / std` per channel of [N, 3, H, W], computed in float32, given in `dtype`."""
    mean = torch.tensor(spec.mean, dtype=torch.float64)
    std = torch.tensor(spec.std, dtype=torch.float64)
    factor = (spec.scale / std).float().view(3, 1, 1).to(images.device)
    shift = ((spec.offset - mean) / std).float().view(3, 1, 1).to(images.device)
    return torch.addcmul(shift, images.float(), factor).to(dtype).contiguous()


def resize_as_float(images: Tensor, size: tuple[int, int], resample: str) -> Tensor:
    """Antialiased resize of uint8 [N, 3, H, W] for devices without a uint8 kernel; at most one level off that one."""
    across = interpolate(images.float(), size=(images.shape[-2], size[1]), mode=resample, antialias=True)
    # PIL rounds and clips between its two passes. Left out, bicubic's overshoot at hard edges was 16 levels off.
    across = across.round_().clamp_(0, 255)
    return interpolate(across, size=size, mode=resample, antialias=True).round_().clamp_(0, 255).to(torch.uint8)


def _resize(images: Tensor, size: tuple[int, int], resample: str) -> Tensor:
    if images.device.type == "cpu":
        # The uint8 kernel rounds between its two passes like PIL, and is several times faster than float.
        return interpolate(images, size=size, mode=resample, antialias=True)
    return resize_as_float(images, size, resample)
