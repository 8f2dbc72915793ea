"""Frames and samples into one MP4: H.264 and AAC, the same bytes for the same input."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidcls_batch.synthetic.sounds import SAMPLE_RATE, Samples
from vidcls_batch.types import Frames


def encode_mp4(
    path: str | Path,
    *,
    frames: Iterator[Frames] | None,
    fps: Fraction,
    samples: Samples | None,
    crf: int = 23,
    key_frame_every: int = 48,
) -> None:
    """Write `path`: `frames` uint8 [height, width, 3], `samples` mono float32 at SAMPLE_RATE; None leaves one out."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        video = audio = None
        first = next(frames, None) if frames is not None else None
        if first is not None:
            video = container.add_stream("libx264", rate=fps)
            video.height, video.width = first.shape[:2]
            video.pix_fmt = "yuv420p"
            # Without mbtree: with it, x264's AVX-512 code gave 17 different files in 30 encodes of the same frames.
            video.options = {"preset": "veryfast", "crf": str(crf), "g": str(key_frame_every), "mbtree": "0"}
            # One thread: the order of threads would otherwise show in the bytes.
            video.codec_context.thread_count = 1
            video.codec_context.time_base = 1 / fps
        if samples is not None:
            audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        if video is not None and frames is not None and first is not None:
            for index, picture in enumerate(_chain(first, frames)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = index, 1 / fps
                container.mux(video.encode(frame.reformat(format="yuv420p", threads=1)))
            container.mux(video.encode(None))
        if audio is not None and samples is not None:
            for start in range(0, len(samples), 1024):
                block = np.ascontiguousarray(samples[None, start : start + 1024])
                sound = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                sound.sample_rate = SAMPLE_RATE
                sound.pts, sound.time_base = start, Fraction(1, SAMPLE_RATE)
                container.mux(audio.encode(sound))
            container.mux(audio.encode(None))


def _chain(first: Frames, rest: Iterator[Frames]) -> Iterator[Frames]:
    yield first
    yield from rest
