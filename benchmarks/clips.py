"""Make the benchmark clips: `python benchmarks/clips.py FOLDER [NAME ...]`; about 4 minutes in all.

A camera pans and zooms over fractal noise with grain while a few discs move: about as hard to code as hand-held video.
"""

import argparse
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS = 30


@dataclass(frozen=True)
class BenchmarkClip:
    name: str
    width: int
    height: int
    seconds: int
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    bit_rate: int | None = None


_X264 = {"preset": "medium", "crf": "23"}
CLIPS = {
    clip.name: clip
    for clip in (
        BenchmarkClip("h264_340x256_10s.mp4", 340, 256, 10, "libx264", _X264),
        BenchmarkClip("h264_720p_10s.mp4", 1280, 720, 10, "libx264", _X264),
        BenchmarkClip("h264_1080p_60s.mp4", 1920, 1080, 60, "libx264", {"preset": "faster", "crf": "23"}),
        BenchmarkClip(
            "hevc_720p_10s.mp4", 1280, 720, 10, "libx265", {"preset": "fast", "x265-params": "log-level=none:pools=1"}
        ),
        BenchmarkClip(
            "vp9_720p_10s.webm", 1280, 720, 10, "libvpx-vp9", {"deadline": "good", "cpu-used": "5"}, 1_500_000
        ),
        BenchmarkClip("av1_720p_10s.mp4", 1280, 720, 10, "libsvtav1", {"preset": "8", "crf": "35"}),
    )
}


def make_clip(clip: BenchmarkClip, folder: Path) -> Path:
    """Write the clip unless it is there."""
    path = folder / clip.name
    if path.exists():
        return path
    partial = path.with_suffix(".partial" + path.suffix)
    with av.open(str(partial), "w") as out:
        stream = out.add_stream(clip.codec, rate=FPS, options=clip.options)
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        if clip.bit_rate:
            stream.codec_context.bit_rate = clip.bit_rate
        for picture in _pictures(clip):
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    partial.rename(path)
    return path


def _pictures(clip: BenchmarkClip):
    random = np.random.default_rng(7)
    world = _fractal_noise(random, 2048)
    grain = random.normal(0, 2, (8, clip.height, clip.width, 1)).astype(np.int16)
    y, x = np.mgrid[0 : clip.height, 0 : clip.width] / clip.height
    for number in range(clip.seconds * FPS):
        t = number / FPS
        span = int(900 + 300 * np.sin(0.7 * t))
        top, left = int(400 + 350 * np.sin(0.31 * t)), int(400 + 350 * np.cos(0.23 * t))
        view = av.VideoFrame.from_ndarray(np.ascontiguousarray(world[top : top + span, left : left + span]), "rgb24")
        picture = (
            view.reformat(clip.width, clip.height, "rgb24", interpolation="BICUBIC", threads=1)
            .to_ndarray()
            .astype(np.int16)
        )
        for disc in range(3):
            centre_y = 0.5 + 0.35 * np.sin(1.3 * t + 2 * disc)
            centre_x = 0.5 * clip.width / clip.height + 0.5 * np.cos(0.9 * t + disc)
            inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < 0.01 * (disc + 1)
            picture[inside] = (60 + 60 * disc, 200 - 50 * disc, 90)
        picture += grain[number % 8]
        frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), "rgb24").reformat(
            format="yuv420p", threads=1
        )
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def _fractal_noise(random: np.random.Generator, size: int) -> np.ndarray:
    """RGB uint8 [size, size, 3] with a 1/f spectrum, like photographs."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0
    planes = []
    for _ in range(3):
        spectrum = np.fft.rfft2(random.normal(size=(size, size))) / frequency
        plane = np.fft.irfft2(spectrum, s=(size, size))
        planes.append(128 + 45 * (plane - plane.mean()) / plane.std())
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(CLIPS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        path = make_clip(CLIPS[name], arguments.folder)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
