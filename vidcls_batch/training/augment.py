"""Changes to a batch of clips that leave their labels true."""

import torch
from torch import Tensor

from vidcls_batch.training.config import AugmentationConfig


def augment(frames: Tensor, config: AugmentationConfig, *, generator: torch.Generator) -> Tensor:
    """uint8 [B, T, H, W, 3] in and out; each clip is changed in one way over all its frames, noise aside."""
    batch = len(frames)
    if config.shift:
        frames = _shift(frames, config.shift, generator)
    if config.horizontal_flip:
        flipped = torch.rand(batch, generator=generator) < 0.5
        frames = torch.where(flipped.view(-1, 1, 1, 1, 1), frames.flip(3), frames)
    if config.shuffle_channels:
        orders = torch.rand(batch, 3, generator=generator).argsort(dim=1)
        frames = frames.gather(4, orders.view(batch, 1, 1, 1, 3).expand_as(frames))
    if not (config.brightness or config.contrast or config.noise):
        return frames
    changed = frames.float()
    if config.contrast:
        factor = 1 + config.contrast * _uniform(batch, generator)
        changed = (changed - 127.5) * factor + 127.5
    if config.brightness:
        changed = changed + 255 * config.brightness * _uniform(batch, generator)
    if config.noise:
        level = 255 * config.noise * torch.rand((batch, 1, 1, 1, 1), generator=generator)
        changed = changed + level * torch.randn(changed.shape, generator=generator)
    return changed.round_().clamp_(0, 255).to(torch.uint8)


def _uniform(batch: int, generator: torch.Generator) -> Tensor:
    """One number in [-1, 1] per clip, [B, 1, 1, 1, 1]."""
    return torch.rand((batch, 1, 1, 1, 1), generator=generator) * 2 - 1


def _shift(frames: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Move each clip by up to `limit` pixels either way; the edge's pixels fill the gap."""
    height, width = frames.shape[2:4]
    moves = torch.randint(-limit, limit + 1, (len(frames), 2), generator=generator)
    shifted = torch.empty_like(frames)
    for index, (down, right) in enumerate(moves.tolist()):
        rows = (torch.arange(height) - down).clamp(0, height - 1)
        columns = (torch.arange(width) - right).clamp(0, width - 1)
        shifted[index] = frames[index][:, rows][:, :, columns]
    return shifted
