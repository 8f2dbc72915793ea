"""Which frames of a clip fill a request's slots: index arithmetic only, no files."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.types import FrameRequest, Sampling, SamplingRule

# Container clocks tick in 1/90000 s or coarser, manifests are written with milliseconds: a frame this little after a
# boundary is the frame at the boundary.
TIME_TOLERANCE_S = 1e-3
CENTRE = 1  # of the crops 0, 1, 2 along the longer side

Times = NDArray[np.float64]
Indices = NDArray[np.int64]


def slot_indices(request: FrameRequest, *, pts_s: Times, start_s: float | None, end_s: float | None) -> Indices:
    """Frame index for each slot of `request`, int64 [num_slots].

    `pts_s` are the file's frame times in display order; indices count in that order. Raises ValueError when the file
    has no frame or the time range lies behind the last one.
    """
    first, stop = frame_range(pts_s, start_s=start_s, end_s=end_s)
    times = pts_s[first:stop]
    chosen = [_with_crops(_RULES[s.rule](s, times), s) for s in request.samplings]
    return first + np.concatenate(chosen)


def frame_range(pts_s: Times, *, start_s: float | None, end_s: float | None) -> tuple[int, int]:
    """Index range [first, stop) of the frames on screen between `start_s` and `end_s`; at least one frame.

    The first is the frame on screen at `start_s`, the last is the last one that appears before `end_s`. Raises
    ValueError when there is none: no frames at all, or `start_s` is past the end of the last frame.
    """
    count = len(pts_s)
    if count == 0:
        raise ValueError("the video has no frames")
    first, stop = 0, count
    if start_s is not None:
        last_frame_s = float(pts_s[-1] - pts_s[0]) / (count - 1) if count > 1 else 0.0
        if start_s > pts_s[-1] + last_frame_s + TIME_TOLERANCE_S:
            raise ValueError(f"start_s={start_s} lies behind the last frame, at {pts_s[-1]:.3f} s")
        first = max(0, int(np.searchsorted(pts_s, start_s + TIME_TOLERANCE_S, side="right")) - 1)
    if end_s is not None:
        stop = int(np.searchsorted(pts_s, end_s - TIME_TOLERANCE_S, side="left"))
    return first, max(stop, first + 1)


def crop_of_slots(request: FrameRequest) -> NDArray[np.int64]:
    """Which crop each slot shows, int64 [num_slots]: 0 the start of the longer side, 1 the centre, 2 the end."""
    crops = {1: [CENTRE], 3: [0, CENTRE, 2]}
    return np.concatenate([np.tile(np.repeat(crops[s.crops], s.num_frames), s.views) for s in request.samplings])


def repeated_slots(request: FrameRequest, slots: Indices) -> NDArray[np.bool_]:
    """True for each slot that shows the same frame as the slot before it in its view, bool [num_slots]."""
    repeated = np.zeros(len(slots), dtype=np.bool_)
    repeated[1:] = slots[1:] == slots[:-1]
    repeated[view_starts(request)] = False
    return repeated


def view_starts(request: FrameRequest) -> list[int]:
    """Slot at which each view of each sampling starts, each crop being a view."""
    starts, slot = [], 0
    for sampling in request.samplings:
        for _ in range(sampling.num_views):
            starts.append(slot)
            slot += sampling.num_frames
    return starts


def _with_crops(indices: Indices, sampling: Sampling) -> Indices:
    views = indices.reshape(sampling.views, 1, sampling.num_frames)
    return views.repeat(sampling.crops, axis=1).reshape(-1)


def _uniform(sampling: Sampling, times: Times) -> Indices:
    # Centre of segment i of T: (i + 1/2) n / T (TSN's test sampling); view v of V: (i + (v + 1/2) / V) n / T.
    segment = np.arange(sampling.num_frames)[None, :]
    offset = (np.arange(sampling.views)[:, None] + 0.5) / sampling.views
    return _floor((segment + offset) * len(times) / sampling.num_frames, len(times))


def _stride(sampling: Sampling, times: Times) -> Indices:
    # MMAction2 1.x SampleFrames(test_mode=True) and its "align with PySlowFast" offsets.
    if sampling.stride is None:
        raise ValueError(f"{sampling} needs a stride")
    steps = np.arange(sampling.num_frames) * sampling.stride
    room = max(0, len(times) - 1 - int(steps[-1]))
    starts = np.round(_window_starts(sampling.views, room)) if sampling.views > 1 else np.array([room // 2])
    return _floor(starts[:, None] + steps[None, :], len(times))


def _fps(sampling: Sampling, times: Times) -> Indices:
    # By time, not by index: files of variable frame rate come out right.
    if sampling.fps is None:
        raise ValueError(f"{sampling} needs fps")
    steps = np.arange(sampling.num_frames) / sampling.fps
    room = max(0.0, float(times[-1] - times[0] - steps[-1]))
    wanted = times[0] + _window_starts(sampling.views, room)[:, None] + steps[None, :]
    on_screen: Indices = (
        np.searchsorted(times, wanted.reshape(-1) + TIME_TOLERANCE_S, side="right").astype(np.int64) - 1
    )
    return on_screen.clip(0, len(times) - 1)


def _window_starts(views: int, room: float) -> Times:
    return np.linspace(0.0, room, views) if views > 1 else np.array([room / 2])


def _floor(positions: NDArray[np.float64] | Indices, count: int) -> Indices:
    indices: Indices = np.floor(positions.reshape(-1)).astype(np.int64)
    return indices.clip(0, count - 1)


_RULES: dict[SamplingRule, Callable[[Sampling, Times], Indices]] = {
    "uniform": _uniform,
    "stride": _stride,
    "fps": _fps,
}
