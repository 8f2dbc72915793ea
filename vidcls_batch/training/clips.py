"""Cached clips as the batches a Trainer takes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidcls_batch.models.base import InputSpec, Sound
from vidcls_batch.models.log_mel import LogMelInput
from vidcls_batch.models.preprocess import preprocess
from vidcls_batch.training.clip_cache import CachedClips
from vidcls_batch.training.targets import Targets

Batch = dict[str, Tensor]


class ClipBatches(Dataset[Batch]):
    """Clips fetched a batch at a time: `pixel_values` float32 [B, T, 3, H, W] and the targets; for a model that hears,
    `log_mel` float32 [B, frames, mels] and `has_sound` bool [B].
    """

    def __init__(
        self,
        clips: CachedClips,
        *,
        spec: InputSpec,
        targets: Targets,
        change: Callable[[Tensor], Tensor] | None = None,
        heard: LogMelInput | None = None,
    ) -> None:
        self._clips = clips
        self._spec = spec
        self._targets = targets
        self._change = change
        self._heard = heard

    def __len__(self) -> int:
        return len(self._clips.rows)

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        frames = torch.from_numpy(self._clips.frames[list(indices)])
        if self._change is not None:
            frames = self._change(frames)
        pixels = preprocess(frames.flatten(0, 1), self._spec, dtype=torch.float32)
        seen = {"pixel_values": pixels.view(*frames.shape[:2], *pixels.shape[1:])}
        return {**seen, **self._sound(indices), **self._targets(indices)}

    def _sound(self, indices: Sequence[int]) -> Batch:
        if self._heard is None:
            return {}
        samples = torch.from_numpy(self._clips.samples[list(indices)])
        sound = Sound(samples, torch.from_numpy(self._clips.lengths[list(indices)]), self._heard.mel.sample_rate)
        return {"log_mel": self._heard.features(sound), "has_sound": sound.lengths > 0}


def keep_batch(batch: Batch) -> Batch:
    """A collator for datasets that fetch whole batches."""
    return batch
