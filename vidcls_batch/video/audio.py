"""The sound of a clip: mono, at the rate a member wants, aligned to the clip's time range."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.types import AudioState, DecodeLimits
from vidcls_batch.video.probe import av_failures_become_clip_errors, open_container

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# 2^-15: below one step of 16-bit sound.
_SILENCE = 1 / 32768


@dataclass(frozen=True, slots=True)
class AudioClip:
    """Samples float32 [num_samples] in [-1, 1] at `sample_rate`; zeros where the track has none."""

    samples: NDArray[np.float32] = field(repr=False)
    sample_rate: int
    state: AudioState


def decode_audio(
    source: bytes | memoryview,
    *,
    sample_rate: int,
    limits: DecodeLimits,
    start_s: float | None = None,
    end_s: float | None = None,
) -> AudioClip:
    """Decode the best audio stream between `start_s` and `end_s`, seconds on the same clock as frame times.

    With `end_s` the result has exactly (end_s - start_s) * sample_rate samples: a track that starts late or ends early
    is padded with zeros. Raises ClipError for a file that cannot be read.
    """
    import av

    first = round((start_s or 0.0) * sample_rate)
    last = None if end_s is None else round(end_s * sample_rate)
    pieces: list[NDArray[np.float32]] = []
    begin = position = 0  # in samples from the start of the file
    with open_container(source, limits=limits) as (container, _), av_failures_become_clip_errors():
        best = container.streams.best("audio")
        stream = next((track for track in container.streams.audio if track is best), None)
        file_start_s = (container.start_time or 0) / av.time_base
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=sample_rate)
        for frame in _audio_frames(container, stream) if stream is not None else ():
            if not pieces:
                begin = position = round(((frame.time or 0.0) - file_start_s) * sample_rate)
            if last is not None and position >= last:
                break
            frame.pts = None  # the resampler would fill or cut at jumps of the clock; samples are counted instead
            pieces.extend(out.to_ndarray()[0] for out in resampler.resample(frame))
            position = begin + sum(map(len, pieces))
        if pieces:
            pieces.extend(out.to_ndarray()[0] for out in resampler.resample(None))
    return _aligned(pieces, begin=begin, first=first, last=last, sample_rate=sample_rate)


def _audio_frames(container: "InputContainer", stream: "AudioStream") -> "Iterator[AudioFrame]":
    import av

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except MemoryError:
            raise
        except av.error.FFmpegError:  # a damaged packet is a short gap
            continue


def _aligned(
    pieces: list[NDArray[np.float32]], *, begin: int, first: int, last: int | None, sample_rate: int
) -> AudioClip:
    """Cut what starts at sample `begin` of the file to [first, last), zeros where there is nothing."""
    heard = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    stop = max(first, begin + len(heard)) if last is None else last
    samples = np.zeros(stop - first, np.float32)
    here = heard[max(0, first - begin) : max(0, stop - begin)]
    offset = max(0, begin - first)
    samples[offset : offset + len(here)] = here
    if len(here) == 0:
        return AudioClip(samples, sample_rate, AudioState.MISSING)
    is_silent = float(np.abs(here).max()) < _SILENCE
    return AudioClip(samples, sample_rate, AudioState.SILENT if is_silent else AudioState.PRESENT)
