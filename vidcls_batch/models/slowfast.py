"""SlowFast 8x8 (Feichtenhofer et al. 2019, arXiv:1812.03982): few frames in width, many frames in a thin pathway.

Module names are PyTorchVideo's, so that its published `.pyth` files load as they are.
"""

import torch
from torch import Tensor, nn

from vidcls_batch.models.base import Scores
from vidcls_batch.models.resnet3d import DEPTHS, Head, ResStage, Stem, pool_windows

ALPHA = 4  # the fast pathway sees this many times the slow one's frames
BETA_INVERSE = 8  # and has this fraction of its channels
FUSION_RATIO = 2  # channels handed over, as a multiple of the fast pathway's
SLOW_KERNELS_T = (1, 1, 3, 3)
FAST_KERNELS_T = (3, 3, 3, 3)
FUSION_KERNEL_T = {50: 7, 101: 5}  # as published


class FastToSlow(nn.Module):
    """Strided in time, the fast pathway's features join the slow one's channels."""

    def __init__(self, fast_width: int, *, kernel_t: int) -> None:
        super().__init__()
        width = fast_width * FUSION_RATIO
        self.conv_fast_to_slow = nn.Conv3d(
            fast_width, width, (kernel_t, 1, 1), stride=(ALPHA, 1, 1), padding=(kernel_t // 2, 0, 0), bias=False
        )
        self.norm = nn.BatchNorm3d(width)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """Features [N, C, T, H, W] of both to one."""
        return torch.cat([slow, torch.relu(self.norm(self.conv_fast_to_slow(fast)))], dim=1)


class Pathways(nn.Module):
    """The slow and the fast part of one stage, and what the fast one hands over after it."""

    def __init__(self, slow: nn.Module, fast: nn.Module, *, fusion: nn.Module | None) -> None:
        super().__init__()
        self.multipathway_blocks = nn.ModuleList([slow, fast])
        self.multipathway_fusion = fusion

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, C, T, H, W] of both, in and out."""
        slow, fast = self.multipathway_blocks[0](slow), self.multipathway_blocks[1](fast)
        if self.multipathway_fusion is not None:
            slow = self.multipathway_fusion(slow, fast)
        return slow, fast


class PoolBoth(nn.Module):
    """Each pathway pooled over all its frames and windows of 7x7, then joined in channels."""

    def __init__(self, *, slow_frames: int) -> None:
        super().__init__()
        self.slow_window = (slow_frames, 7, 7)
        self.fast_window = (slow_frames * ALPHA, 7, 7)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """Features [N, C, T, H, W] of both to one."""
        return torch.cat([pool_windows(slow, self.slow_window), pool_windows(fast, self.fast_window)], dim=1)


class SlowFast(nn.Module):
    """Pixels [N, 32, 3, H, W] to Scores; the slow pathway's 8 frames are taken from the 32."""

    def __init__(self, *, depth: int, num_labels: int, slow_frames: int = 8) -> None:
        super().__init__()
        self.slow_frames = slow_frames
        kernel_t = FUSION_KERNEL_T[depth]
        blocks: list[nn.Module] = [
            Pathways(
                Stem(64, kernel_t=1),
                Stem(64 // BETA_INVERSE, kernel_t=5),
                fusion=FastToSlow(64 // BETA_INVERSE, kernel_t=kernel_t),
            )
        ]
        width = 64
        for stage, num_blocks in enumerate(DEPTHS[depth]):
            inner, fast_width = 64 * 2**stage, width // BETA_INVERSE
            shape = {"depth": num_blocks, "stride": 1 if stage == 0 else 2}
            slow = ResStage(
                width + fast_width * FUSION_RATIO, inner, 4 * inner, kernels_t=(SLOW_KERNELS_T[stage],), **shape
            )
            fast = ResStage(
                fast_width,
                inner // BETA_INVERSE,
                4 * inner // BETA_INVERSE,
                kernels_t=(FAST_KERNELS_T[stage],),
                **shape,
            )
            width = 4 * inner
            last = stage == len(DEPTHS[depth]) - 1
            fusion = None if last else FastToSlow(width // BETA_INVERSE, kernel_t=kernel_t)
            blocks.append(Pathways(slow, fast, fusion=fusion))
        blocks.append(PoolBoth(slow_frames=slow_frames))
        blocks.append(Head(width + width // BETA_INVERSE, num_labels, pool=None))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor) -> Scores:
        """Normalised pixels [N, T, 3, H, W]."""
        fast = pixels.transpose(1, 2)
        # PyTorchVideo's PackPathway: the first and the last frame, evenly between, rounded down.
        picked = torch.linspace(0, fast.shape[2] - 1, self.slow_frames).long()
        slow = fast[:, :, picked.to(fast.device)]
        for block in self.blocks[:-2]:
            slow, fast = block(slow, fast)
        scores: Scores = self.blocks[-1](self.blocks[-2](slow, fast))
        return scores
