"""Cached clips as the batches a Trainer takes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.preprocess import preprocess
from vidcls_batch.training.clip_cache import CachedClips
from vidcls_batch.training.targets import Targets

Batch = dict[str, Tensor]


class ClipBatches(Dataset[Batch]):
    """Clips fetched a batch at a time: `pixel_values` float32 [B, T, 3, H, W] and the targets."""

    def __init__(
        self,
        clips: CachedClips,
        *,
        spec: InputSpec,
        targets: Targets,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._clips = clips
        self._spec = spec
        self._targets = targets
        self._change = change

    def __len__(self) -> int:
        return len(self._clips.rows)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        frames = torch.from_numpy(self._clips.frames[list(indices)])
        if self._change is not None:
            frames = self._change(frames)
        pixels = preprocess(frames.flatten(0, 1), self._spec, dtype=torch.float32)
        return {"pixel_values": pixels.view(*frames.shape[:2], *pixels.shape[1:]), **self._targets(indices)}


def keep_batch(batch: Batch) -> Batch:
    """A collator for datasets that fetch whole batches."""
    return batch
