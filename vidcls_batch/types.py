"""The nouns of the project: values that cross module borders. No behaviour beyond arithmetic on themselves."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the manifest: a video, or the part of it from `start_s` to `end_s`."""

    clip_id: str
    uri: str
    start_s: float | None = None
    end_s: float | None = None


SamplingRule = Literal["uniform", "stride", "fps"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a clip a member sees.

    `uniform`: the centres of `num_frames` equal segments. `stride`: every `stride`-th frame. `fps`: frames at `fps` per
    second. For `stride` and `fps`, `views` windows are spread evenly from the first to the last possible start (one
    view: the middle). For `uniform`, view v of V takes the segment offset (v + 0.5) / V. A clip too short for the
    window repeats its frames. With three `crops` each view is seen three times: the square at the start, in the middle
    and at the end of the picture's longer side.
    """

    num_frames: int
    rule: SamplingRule = "uniform"
    stride: int | None = None
    fps: float | None = None
    views: int = 1
    crops: Literal[1, 3] = 1

    @property
    def num_views(self) -> int:
        """What a member scores and averages: `views` in time, each with its `crops`."""
        return self.views * self.crops

    @property
    def num_slots(self) -> int:
        """Frames in all views together."""
        return self.num_frames * self.num_views


@dataclass(frozen=True, slots=True)
class SoundWindow:
    """Which sound of a clip a member hears: mono, at most `num_samples`, from the middle of a clip that is longer."""

    sample_rate: int
    num_samples: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.num_samples / self.sample_rate


class AudioState(StrEnum):
    """Whether a clip has sound; a member must not mistake a missing track for silence."""

    PRESENT = "present"
    SILENT = "silent"  # there is a track, and nothing to hear on it within the range
    MISSING = "missing"  # no audio stream, or none that reaches into the range


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """What one decode of a clip delivers, the same for each clip of a run: all members' frames at one size, and sound.

    Frames are scaled so that the image covers `height` x `width` (shorter side fits, aspect ratio kept, antialiased),
    then cropped. Slots are the samplings' frames one after another, view after view, crop after crop within a view.
    Sound windows are filled one after another; without any, sound is not decoded.
    """

    samplings: tuple[Sampling, ...]
    height: int
    width: int
    sounds: tuple[SoundWindow, ...] = ()

    @property
    def num_samples(self) -> int:
        """Sound samples in all windows together."""
        return sum(w.num_samples for w in self.sounds)

    @property
    def clip_bytes(self) -> int:
        """Bytes of one clip's frames (uint8) and sound (float32)."""
        slots, height, width, channels = self.frames_shape
        return slots * height * width * channels + 4 * self.num_samples

    def samples_of(self, window: SoundWindow) -> slice:
        """Where the sound of `window` lies among a clip's samples. Raises ValueError when it was not asked for."""
        at = self.sounds.index(window)
        start = sum(w.num_samples for w in self.sounds[:at])
        return slice(start, start + window.num_samples)

    @property
    def num_slots(self) -> int:
        """Length of the frames' first axis."""
        return sum(s.num_slots for s in self.samplings)

    @property
    def frames_shape(self) -> tuple[int, int, int, int]:
        """Shape of one clip's frames: slots, height, width, RGB."""
        return (self.num_slots, self.height, self.width, 3)

    def slots_of(self, sampling: Sampling) -> slice:
        """Where the frames of `sampling` lie on the first axis. Raises ValueError when it was not asked for."""
        start = 0
        for s in self.samplings:
            if s == sampling:
                return slice(start, start + s.num_slots)
            start += s.num_slots
        raise ValueError(f"{sampling} is not part of this request: {self.samplings}")


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a clip may cost before it becomes a typed failure. Checked before decoding wherever the header tells."""

    timeout_s: float = 60.0
    memory_mb: int = 2048  # address space of the decoder child above its own start
    max_bytes: int = 2 << 30
    max_pixels: int = 8192 * 4320
    max_duration_s: float = 4 * 3600.0
    max_packets: int = 1_000_000


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What the container and codec say of the source; None where they do not say."""

    duration_s: float | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None


@dataclass(frozen=True, slots=True)
class DecodeQuality:
    """How well the frames came out; counts over the request's slots except `packet_errors` (whole decode)."""

    frames_requested: int
    frames_decoded: int  # distinct source frames behind the slots
    frames_repeated: int  # slots that show the same source frame as the slot before them in their view
    packet_errors: int
    frames_corrupt: int
    frame_pts_s: tuple[float, ...]  # one per slot, seconds from the start of the file
    dark_ratio: float  # share of slots that are (nearly) black
    frozen_ratio: float  # share of neighbouring slots that are (nearly) equal


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """All that a decode says beside the frames."""

    facts: VideoFacts
    quality: DecodeQuality
    decoder: str  # the backend that made the frames, with its version: `pyav-18.1.0`
    decode_ms: float
    audio: AudioState | None = None  # None: no sound was asked for
    sound_lengths: tuple[int, ...] = ()  # samples of each window from its first on; 0: no sound


Samples = NDArray[np.float32]
Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """Frames uint8 [slots, height, width, 3], sound float32 [samples of all windows], and their report."""

    frames: Frames = field(repr=False)
    report: DecodeReport
    samples: Samples = field(repr=False)
