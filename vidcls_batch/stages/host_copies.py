"""Frames from a block in host memory to the device; on CUDA the copy of the next clips runs while these are scored."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from vidcls_batch.types import Frames

# Small enough that a block is several copies, large enough (eight clips of 16 frames of 224x224: 19 MB) to fill a GPU.
CLIPS_PER_COPY = 8


class HostCopies:
    """Starts copies; each gives a function that hands over the frames once they are there.

    On CUDA they go through two pinned buffers on a stream of their own: a copy from pageable memory would make the
    host wait for it. On the CPU nothing is copied.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self.overlap = self._device.type == "cuda"
        self._stream: torch.cuda.Stream | None = None
        self._pinned: list[tuple[torch.Tensor, torch.cuda.Event]] = []
        self._turn = 0

    def parts(self, num_clips: int) -> list[slice]:
        """How a block is cut; not at all where copies do not overlap."""
        step = CLIPS_PER_COPY if self.overlap else max(num_clips, 1)
        return [slice(start, start + step) for start in range(0, num_clips, step)]

    def start(self, frames: Frames) -> Callable[[], torch.Tensor]:
        """Begin to copy uint8 frames; the function makes the calling stream, not the host, wait for them."""
        here = _as_tensor(frames)
        if not self.overlap:
            return lambda: here
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        staged, copied = self._buffer(here.numel())
        staged = staged.view(here.shape)
        staged.copy_(here)
        with torch.cuda.stream(self._stream):
            there = staged.to(self._device, non_blocking=True)
            copied.record(self._stream)

        def wait() -> torch.Tensor:
            scoring = torch.cuda.current_stream(self._device)
            scoring.wait_event(copied)
            # Its memory belongs to the copying stream, which must not reuse it before the scoring stream is through.
            there.record_stream(scoring)
            return there

        return wait

    def at_once(self, values: NDArray[Any]) -> torch.Tensor:
        """What is too small to be worth the trouble."""
        return _as_tensor(values).to(self._device)

    def _buffer(self, num_bytes: int) -> tuple[torch.Tensor, torch.cuda.Event]:
        """One of two pinned buffers, its last copy done, and the event of the copy to come."""
        self._turn = 1 - self._turn
        while len(self._pinned) < 2:
            self._pinned.append((torch.empty(0, dtype=torch.uint8), _event()))
        buffer, copied = self._pinned[self._turn]
        copied.synchronize()
        if buffer.numel() < num_bytes:
            buffer = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        self._pinned[self._turn] = (buffer, _event())
        return buffer[:num_bytes], self._pinned[self._turn][1]


def _as_tensor(values: NDArray[Any]) -> torch.Tensor:
    with warnings.catch_warnings():
        # The block lies read-only in shared memory; the models never write to their input.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]
