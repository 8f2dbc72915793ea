"""How well a clip's frames came out: dark, frozen, repeated, damaged."""

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.types import DecodeQuality, FrameRequest, Frames
from vidcls_batch.video.sampling import Indices, Times, repeated_slots, view_starts

# ffmpeg's blackframe filter: at least 98 % of the pixels below 32.
DARK_LEVEL = 32
DARK_SHARE = 0.98
# Mean absolute difference in grey levels. A still picture re-coded by x264 stays below 0.3; a 20-pixel square that
# moves by its own width on an otherwise still 224-pixel picture is above 0.8.
FROZEN_LEVEL = 0.5
_STEP = 4  # every fourth pixel of every fourth row says the same at a sixteenth of the cost


def measure_quality(
    request: FrameRequest,
    frames: Frames,
    *,
    slots: Indices,
    pts_s: Times,
    corrupt: NDArray[np.bool_],
    packet_errors: int,
) -> DecodeQuality:
    """Quality of `frames` [slots, height, width, 3]; `slots` their frame indices, `corrupt` bool [slots]."""
    repeated = repeated_slots(request, slots)
    return DecodeQuality(
        frames_requested=len(slots),
        frames_decoded=len(np.unique(slots)),
        frames_repeated=int(repeated.sum()),
        packet_errors=packet_errors,
        frames_corrupt=int(corrupt.sum()),
        frame_pts_s=tuple(pts_s[slots].tolist()),
        dark_ratio=dark_ratio(frames),
        frozen_ratio=frozen_ratio(request, frames),
    )


def dark_ratio(frames: Frames) -> float:
    """Share of frames that are (nearly) black."""
    small = frames[:, ::_STEP, ::_STEP]
    bright = (np.maximum(np.maximum(small[..., 0], small[..., 1]), small[..., 2]) >= DARK_LEVEL).mean(axis=(1, 2))
    return float((bright <= 1 - DARK_SHARE).mean())


def frozen_ratio(request: FrameRequest, frames: Frames) -> float:
    """Share of neighbouring slots within a view that show (nearly) the same picture; 0 where no view has two slots."""
    small = frames[:, ::_STEP, ::_STEP].astype(np.int16)
    differs = np.abs(small[1:] - small[:-1]).mean(axis=(1, 2, 3)) > FROZEN_LEVEL
    within_view = np.ones(len(differs), dtype=np.bool_)
    within_view[[start - 1 for start in view_starts(request) if start > 0]] = False
    pairs = int(within_view.sum())
    return float((~differs & within_view).sum() / pairs) if pairs else 0.0
