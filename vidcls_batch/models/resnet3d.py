"""3D ResNets with bottlenecks: Slow (arXiv:1812.03982), C2D (arXiv:1711.07971) and I3D (arXiv:1705.07750) R50.

Module names are PyTorchVideo's, so that its published `.pyth` files load as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from vidcls_batch.models.base import Scores

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class Bottleneck(nn.Module):
    """Kernel [t, 1, 1], then [1, 3, 3], then 1: the branch of a block that computes."""

    def __init__(self, width_in: int, inner: int, width_out: int, *, kernel_t: int, stride: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv3d(width_in, inner, (kernel_t, 1, 1), padding=(kernel_t // 2, 0, 0), bias=False)
        self.norm_a = nn.BatchNorm3d(inner)
        self.conv_b = nn.Conv3d(inner, inner, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False)
        self.norm_b = nn.BatchNorm3d(inner)
        self.conv_c = nn.Conv3d(inner, width_out, 1, bias=False)
        self.norm_c = nn.BatchNorm3d(width_out)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        x = torch.relu(self.norm_a(self.conv_a(x)))
        x = torch.relu(self.norm_b(self.conv_b(x)))
        out: Tensor = self.norm_c(self.conv_c(x))
        return out


class ResBlock(nn.Module):
    """A bottleneck and its shortcut, projected where the shape changes."""

    def __init__(self, width_in: int, inner: int, width_out: int, *, kernel_t: int, stride: int) -> None:
        super().__init__()
        self.branch1_conv: nn.Module | None = None
        self.branch1_norm: nn.Module | None = None
        if width_in != width_out or stride != 1:
            self.branch1_conv = nn.Conv3d(width_in, width_out, 1, stride=(1, stride, stride), bias=False)
            self.branch1_norm = nn.BatchNorm3d(width_out)
        self.branch2 = Bottleneck(width_in, inner, width_out, kernel_t=kernel_t, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        shortcut = x
        if self.branch1_conv is not None and self.branch1_norm is not None:
            shortcut = self.branch1_norm(self.branch1_conv(x))
        return torch.relu(shortcut + self.branch2(x))


class ResStage(nn.Module):
    """Blocks of one width; the first one changes the shape. `kernels_t` repeat over the blocks."""

    def __init__(
        self, width_in: int, inner: int, width_out: int, *, depth: int, kernels_t: Sequence[int], stride: int
    ) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(
            ResBlock(
                width_in if i == 0 else width_out,
                inner,
                width_out,
                kernel_t=kernels_t[i % len(kernels_t)],
                stride=stride if i == 0 else 1,
            )
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        for block in self.res_blocks:
            x = block(x)
        return x


class Stem(nn.Module):
    """Convolution [t, 7, 7] and a pool, together a quarter of the height and width."""

    def __init__(self, width: int, *, kernel_t: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, width, (kernel_t, 7, 7), stride=(1, 2, 2), padding=(kernel_t // 2, 3, 3), bias=False)
        self.norm = nn.BatchNorm3d(width)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        out: Tensor = self.pool(torch.relu(self.norm(self.conv(x))))
        return out


def pool_windows(x: Tensor, window: tuple[int, int, int]) -> Tensor:
    """Means over all windows of that size in [N, C, T, H, W]; over everything where the frames are smaller."""
    windows = [min(size, available) for size, available in zip(window, x.shape[2:], strict=True)]
    # In float32: the CPU's kernel knows no other type.
    return avg_pool3d(x.float(), windows, stride=1).to(x.dtype)


class Head(nn.Module):
    """Average pool to positions, a linear layer at each, logits averaged over positions."""

    def __init__(self, width: int, num_labels: int, *, pool: tuple[int, int, int] | None) -> None:
        super().__init__()
        self.window = pool
        self.proj = nn.Linear(width, num_labels)

    def forward(self, x: Tensor) -> Scores:
        """Features [N, C, T, H, W] to logits and embeddings."""
        # The layer is linear: the mean of the positions' logits is the logits of their mean.
        if self.window is not None:
            x = pool_windows(x, self.window)
        embeddings = x.mean(dim=(2, 3, 4))
        return Scores(logits=self.proj(embeddings), embeddings=embeddings)


@dataclass(frozen=True, slots=True)
class ResNetPlan:
    """What tells these networks apart."""

    stem_t: int
    kernels_t: tuple[tuple[int, ...], ...]  # per stage
    pools_time: bool  # halve the frames after the first stage
    head_pool: tuple[int, int, int]


SLOW = ResNetPlan(stem_t=1, kernels_t=((1,), (1,), (3,), (3,)), pools_time=False, head_pool=(8, 7, 7))
C2D = ResNetPlan(stem_t=1, kernels_t=((1,), (1,), (1,), (1,)), pools_time=True, head_pool=(4, 7, 7))
I3D = ResNetPlan(stem_t=5, kernels_t=((3,), (3, 1), (3, 1), (1, 3)), pools_time=True, head_pool=(4, 7, 7))


class ResNet3d(nn.Module):
    """Pixels [N, T, 3, H, W] to Scores."""

    def __init__(self, plan: ResNetPlan, *, num_labels: int, depth: int = 50) -> None:
        super().__init__()
        blocks: list[nn.Module] = [Stem(64, kernel_t=plan.stem_t)]
        width = 64
        for stage, num_blocks in enumerate(DEPTHS[depth]):
            inner = 64 * 2**stage
            kernels = plan.kernels_t[stage]
            blocks.append(
                ResStage(width, inner, 4 * inner, depth=num_blocks, kernels_t=kernels, stride=1 if stage == 0 else 2)
            )
            width = 4 * inner
            if stage == 0 and plan.pools_time:
                blocks.append(nn.MaxPool3d((2, 1, 1)))
        blocks.append(Head(width, num_labels, pool=plan.head_pool))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor) -> Scores:
        """Normalised pixels [N, T, 3, H, W]."""
        x = pixels.transpose(1, 2)
        for block in self.blocks[:-1]:
            x = block(x)
        scores: Scores = self.blocks[-1](x)
        return scores
