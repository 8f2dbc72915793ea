"""The sound of a clip: mono, at the rates members want, aligned to the clip's time range."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.errors import ClipError, Status
from vidcls_batch.types import AudioState, DecodeLimits, Samples, SoundWindow
from vidcls_batch.video.probe import av_failures_become_clip_errors, open_container
from vidcls_batch.video.source import Source

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# 2^-15: below one step of 16-bit sound.
_SILENCE = 1 / 32768
# A window that starts later is reached by a jump in the file, to this much before it: decoders need a packet or two
# until they give what they would have given without the jump.
_JUMP_FROM_S = 10.0
_RUN_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class SoundReport:
    """What a clip's sound came to: samples of each window from its first on, 0 where there is no sound."""

    state: AudioState
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Samples [first, last) of the file, counted from its start at the window's rate."""

    window: SoundWindow
    first: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.first


def decode_sound(
    out: Samples,
    source: Source,
    *,
    windows: Sequence[SoundWindow],
    limits: DecodeLimits,
    start_s: float,
    end_s: float,
) -> SoundReport:
    """Fill `out` (float32, the windows one after another, zeros behind what is there) with the sound of the best audio
    stream between `start_s` and `end_s`, seconds on the same clock as frame times.

    A range longer than a window is heard in its middle. A track that starts late or ends early is filled with zeros. A
    track that cannot be decoded is a missing one. Raises ClipError when memory runs out or the file cannot be fetched.
    """
    places = [_place(window, start_s=start_s, end_s=end_s) for window in windows]
    for jumps in (True, False):
        out[...] = 0
        try:
            found = _listen(out, source, places=places, limits=limits, jumps=jumps)
        except ClipError as error:
            if error.status is not Status.DECODE_ERROR:
                raise
            found = None
        if found is not None:
            break
    if not found:
        return SoundReport(AudioState.MISSING, (0,) * len(places))
    loudest = float(np.abs(out).max(initial=0.0))
    state = AudioState.SILENT if loudest < _SILENCE else AudioState.PRESENT
    return SoundReport(state, tuple(place.length for place in places))


def _place(window: SoundWindow, *, start_s: float, end_s: float) -> _Place:
    first, last = round(start_s * window.sample_rate), round(end_s * window.sample_rate)
    first += max(0, last - first - window.num_samples) // 2
    return _Place(window, first, min(max(last, first), first + window.num_samples))


def _listen(
    out: Samples, source: Source, *, places: Sequence[_Place], limits: DecodeLimits, jumps: bool
) -> bool | None:
    """Whether there was any sound; None when a jump led nowhere."""
    import av

    with open_container(source, limits=limits) as (container, _), av_failures_become_clip_errors():
        best = container.streams.best("audio")
        stream = next((track for track in container.streams.audio if track is best), None)
        if stream is None or stream.codec_context is None:
            return False
        file_start_s = (container.start_time or 0) / av.time_base
        begin_s = min(place.first / place.window.sample_rate for place in places)
        jumped = jumps and begin_s > _JUMP_FROM_S and _jump(container, stream, begin_s - _RUN_UP_S + file_start_s)
        offsets = np.cumsum([0, *(place.window.num_samples for place in places)])
        rows = [out[start : start + p.length] for start, p in zip(offsets[:-1], places, strict=True)]
        ears: list[_Ear] | None = None
        for frame in _audio_frames(container, stream, max_packets=limits.max_packets):
            if ears is None:
                if jumped and (frame.time is None or frame.time - file_start_s > begin_s):
                    return None
                time_s = (frame.time or 0.0) - file_start_s
                ears = [_Ear(p, row, starts_at_s=time_s) for p, row in zip(places, rows, strict=True)]
            elif all(ear.is_full for ear in ears):
                break
            frame.pts = None  # the resampler would fill or cut at jumps of the clock; samples are counted instead
            went_well = [ear.hear(frame) for ear in ears]
            if not all(went_well):
                break
        if ears is None and jumped:
            return None
        heard = [ear.finish() for ear in ears or ()]
        return any(heard)


def _jump(container: "InputContainer", stream: "AudioStream", to_s: float) -> bool:
    import av

    if stream.time_base is None:
        return False
    try:
        container.seek(int(to_s / stream.time_base), stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def _audio_frames(container: "InputContainer", stream: "AudioStream", *, max_packets: int) -> "Iterator[AudioFrame]":
    import av
    from av.stream import Discard

    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    for count, packet in enumerate(container.demux(stream)):
        if count >= max_packets:
            return
        try:
            yield from packet.decode()
        except MemoryError:
            raise
        except av.error.FFmpegError:  # a damaged packet is a short gap
            continue


class _Ear:
    """Resamples frame after frame and keeps what falls into its place."""

    def __init__(self, place: _Place, out: NDArray[np.float32], *, starts_at_s: float) -> None:
        import av

        self._place, self._out = place, out
        self._position = round(starts_at_s * place.window.sample_rate)
        self._heard = False
        self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=place.window.sample_rate)

    @property
    def is_full(self) -> bool:
        return self._position >= self._place.last

    def hear(self, frame: "AudioFrame") -> bool:
        """False when the track changed its form: what comes is not heard."""
        try:
            self._keep(self._resampler.resample(frame))
        except ValueError:
            return False
        return True

    def finish(self) -> bool:
        """Take the resampler's rest. Whether anything was heard."""
        self._keep(self._resampler.resample(None))
        return self._heard

    def _keep(self, frames: "Sequence[AudioFrame]") -> None:
        for frame in frames:
            samples = frame.to_ndarray()[0]
            at = self._position - self._place.first
            here = samples[max(0, -at) : max(0, self._place.length - at)]
            if len(here):
                self._out[max(0, at) : max(0, at) + len(here)] = here
                self._heard = True
            self._position += len(samples)
