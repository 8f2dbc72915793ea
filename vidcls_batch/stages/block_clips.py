"""The clips of a block that are scored together, in host memory and on the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vidcls_batch.labeling.labeler import MemberEvidence
from vidcls_batch.models.base import Sound
from vidcls_batch.stages.host_copies import HostCopies
from vidcls_batch.types import FrameRequest, Frames, Samples, SoundWindow


@dataclass(frozen=True, slots=True)
class BlockClips:
    """Frames [B, ...], the clips' ids, what earlier groups said of them and, where a member hears, their sound."""

    frames: Frames
    ids: NDArray[np.object_]
    known: Mapping[int, MemberEvidence]
    samples: Samples | None = None  # [B, samples of all windows]
    lengths: NDArray[np.int32] | None = None  # [B, windows]

    def part(self, indices: NDArray[np.int64] | slice) -> "BlockClips":
        """Some of them."""
        if not isinstance(indices, slice) and len(indices) == len(self.frames):
            return self
        return BlockClips(
            self.frames[indices],
            self.ids[indices],
            {member: evidence.part(indices) for member, evidence in self.known.items()},
            None if self.samples is None else self.samples[indices],
            None if self.lengths is None else self.lengths[indices],
        )

    def start_copy(self, copies: HostCopies) -> Callable[[], "ClipsOnDevice"]:
        """Begin to copy them to the device; the function hands them over."""
        frames = copies.start(self.frames)
        return lambda: ClipsOnDevice(
            frames(),
            None if self.samples is None else copies.at_once(self.samples),
            None if self.lengths is None else copies.at_once(self.lengths),
        )


@dataclass(frozen=True, slots=True)
class ClipsOnDevice:
    """Frames and sound of the clips that are scored together."""

    frames: torch.Tensor
    samples: torch.Tensor | None
    lengths: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.frames)

    def part(self, asked: NDArray[np.int64]) -> "ClipsOnDevice":
        """Some of them."""
        if len(asked) == len(self):
            return self
        chosen = torch.from_numpy(asked).to(self.frames.device)
        return ClipsOnDevice(
            self.frames[chosen],
            None if self.samples is None else self.samples[chosen],
            None if self.lengths is None else self.lengths[chosen],
        )

    def sound(self, window: SoundWindow, *, request: FrameRequest) -> Sound:
        """What a member of this window hears of them."""
        assert self.samples is not None  # a request with sounds makes blocks with sound
        assert self.lengths is not None
        lengths = self.lengths[:, request.sounds.index(window)].long()
        return Sound(self.samples[:, request.samples_of(window)], lengths, window.sample_rate)
