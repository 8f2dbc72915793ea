"""X3D (Feichtenhofer 2020, arXiv:2004.04730): channel-wise 3D convolutions, expanded one axis at a time.

Module names are PyTorchVideo's, so that its published `.pyth` files load as they are.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from vidcls_batch.models.base import Scores, combine_views
from vidcls_batch.models.resnet3d import pool_windows

WIDTHS = (24, 48, 96, 192)
DEPTHS = (1, 2, 5, 3)  # times the depth factor, rounded up
STEM_WIDTH = 24
BOTTLENECK = 2.25
HEAD_WIDTH = 2048
TOTAL_STRIDE = 32


class SqueezeExcitation(nn.Module):
    """Channels weighted by what the whole clip has of them (arXiv:1709.01507)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = round_width(width / 16)
        self.block = nn.Sequential(
            nn.Conv3d(width, squeezed, 1), nn.ReLU(), nn.Conv3d(squeezed, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        weights: Tensor = self.block(x.mean(dim=(2, 3, 4), keepdim=True))
        return x * weights


class Bottleneck(nn.Module):
    """Widen, convolve each channel in space-time, narrow."""

    def __init__(self, width_in: int, width_out: int, *, stride: int, squeezes: bool) -> None:
        super().__init__()
        inner = int(BOTTLENECK * width_out)
        self.conv_a = nn.Conv3d(width_in, inner, 1, bias=False)
        self.norm_a = nn.BatchNorm3d(inner)
        self.conv_b = nn.Conv3d(inner, inner, 3, stride=(1, stride, stride), padding=1, groups=inner, bias=False)
        self.norm_b = nn.Sequential(nn.BatchNorm3d(inner), SqueezeExcitation(inner) if squeezes else nn.Identity())
        self.conv_c = nn.Conv3d(inner, width_out, 1, bias=False)
        self.norm_c = nn.BatchNorm3d(width_out)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        x = torch.relu(self.norm_a(self.conv_a(x)))
        x = silu(self.norm_b(self.conv_b(x)))
        out: Tensor = self.norm_c(self.conv_c(x))
        return out


class ResBlock(nn.Module):
    """A bottleneck and its shortcut."""

    def __init__(self, width_in: int, width_out: int, *, stride: int, squeezes: bool) -> None:
        super().__init__()
        self.branch1_conv: nn.Module | None = None
        self.branch1_norm: nn.Module | None = None
        if width_in != width_out or stride != 1:
            self.branch1_conv = nn.Conv3d(width_in, width_out, 1, stride=(1, stride, stride), bias=False)
            # The published networks normalise the shortcut only where its width changes.
            self.branch1_norm = nn.BatchNorm3d(width_out) if width_in != width_out else nn.Identity()
        self.branch2 = Bottleneck(width_in, width_out, stride=stride, squeezes=squeezes)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        shortcut = x
        if self.branch1_conv is not None and self.branch1_norm is not None:
            shortcut = self.branch1_norm(self.branch1_conv(x))
        return torch.relu(shortcut + self.branch2(x))


class ResStage(nn.Module):
    """Blocks of one width; every other one squeezes, starting with the first."""

    def __init__(self, width_in: int, width_out: int, *, depth: int) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(
            ResBlock(width_in if i == 0 else width_out, width_out, stride=2 if i == 0 else 1, squeezes=i % 2 == 0)
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        for block in self.res_blocks:
            x = block(x)
        return x


class StemConv(nn.Module):
    """Space first (`conv_t`, by its published name), then time channel by channel (`conv_xy`)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_t = nn.Conv3d(3, STEM_WIDTH, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.conv_xy = nn.Conv3d(STEM_WIDTH, STEM_WIDTH, (5, 1, 1), padding=(2, 0, 0), groups=STEM_WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        out: Tensor = self.conv_xy(self.conv_t(x))
        return out


class Stem(nn.Module):
    """Half the height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = StemConv()
        self.norm = nn.BatchNorm3d(STEM_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        return torch.relu(self.norm(self.conv(x)))


class ProjectedPool(nn.Module):
    """Widen, pool over all frames and a window of the training size, widen again."""

    def __init__(self, *, window: tuple[int, int, int]) -> None:
        super().__init__()
        inner = int(BOTTLENECK * WIDTHS[-1])
        self.pre_conv = nn.Conv3d(WIDTHS[-1], inner, 1, bias=False)
        self.pre_norm = nn.BatchNorm3d(inner)
        self.window = window
        self.post_conv = nn.Conv3d(inner, HEAD_WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        x = pool_windows(torch.relu(self.pre_norm(self.pre_conv(x))), self.window)
        return torch.relu(self.post_conv(x))


class Head(nn.Module):
    """Logits at each position of a frame larger than in training, joined as the mean of their probabilities."""

    def __init__(self, num_labels: int, *, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.pool = ProjectedPool(window=window)
        self.proj = nn.Linear(HEAD_WIDTH, num_labels)

    def forward(self, x: Tensor) -> Scores:
        """Features [N, C, T, H, W] to logits and embeddings."""
        positions = self.pool(x).flatten(2).transpose(1, 2)  # [N, positions, width]
        return Scores(logits=combine_views(self.proj(positions)), embeddings=positions.mean(dim=1))


class X3d(nn.Module):
    """Pixels [N, T, 3, H, W] to Scores; `crop` is the size of the frames in training."""

    def __init__(self, *, frames: int, crop: int, depth_factor: float, num_labels: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [Stem()]
        width = STEM_WIDTH
        for width_out, depth in zip(WIDTHS, DEPTHS, strict=True):
            blocks.append(ResStage(width, width_out, depth=math.ceil(depth * depth_factor)))
            width = width_out
        side = math.ceil(crop / TOTAL_STRIDE)
        blocks.append(Head(num_labels, window=(frames, side, side)))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor) -> Scores:
        """Normalised pixels [N, T, 3, H, W]."""
        x = pixels.transpose(1, 2)
        for block in self.blocks[:-1]:
            x = block(x)
        scores: Scores = self.blocks[-1](x)
        return scores


def round_width(width: float, *, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` that is not more than 10 % below `width`.

    >>> [round_width(w / 16) for w in (54, 108, 216, 432)]
    [8, 8, 16, 32]
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded
