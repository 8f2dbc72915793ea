"""Make the benchmark clips: `python benchmarks/clips.py FOLDER [NAME ...]`; about 8 minutes in all.

What is stored is mostly edited: shots of a few seconds, some from a tripod, some panned, some hand-held, coded with the
encoders' defaults, which put a key picture where a shot begins. `--compare FILE ...` prints the figures by which the
clips are held against real ones (docs/decoding.md). The one-shot clips are harder to skip in: one camera move without
a cut.
"""

import argparse
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FPS = 30
_SHOT_SECONDS = (3.0, 0.5)  # median, and spread of the logarithm
_WORLD = 2048


@dataclass(frozen=True)
class BenchmarkClip:
    name: str
    width: int
    height: int
    seconds: int
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    bit_rate: int | None = None
    one_shot: bool = False


_X264 = {"preset": "medium", "crf": "23"}
_X265 = {"preset": "medium", "x265-params": "log-level=none:pools=1"}
_VP9 = {"deadline": "good", "cpu-used": "5"}
CLIPS = {
    clip.name: clip
    for clip in (
        BenchmarkClip("h264_340x256_10s.mp4", 340, 256, 10, "libx264", _X264),
        BenchmarkClip("h264_720p_10s.mp4", 1280, 720, 10, "libx264", _X264),
        BenchmarkClip("h264_1080p_60s.mp4", 1920, 1080, 60, "libx264", {"preset": "faster", "crf": "23"}),
        BenchmarkClip("hevc_720p_10s.mp4", 1280, 720, 10, "libx265", _X265),
        BenchmarkClip("vp9_720p_10s.webm", 1280, 720, 10, "libvpx-vp9", _VP9, 1_500_000),
        BenchmarkClip("av1_720p_10s.mp4", 1280, 720, 10, "libsvtav1", {"preset": "8", "crf": "35"}),
        BenchmarkClip("h264_340x256_one_shot.mp4", 340, 256, 10, "libx264", _X264, one_shot=True),
        BenchmarkClip("h264_720p_one_shot.mp4", 1280, 720, 10, "libx264", _X264, one_shot=True),
        BenchmarkClip("hevc_720p_one_shot.mp4", 1280, 720, 10, "libx265", _X265 | {"preset": "fast"}, one_shot=True),
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
        for number, pixels in enumerate(_one_shot(clip) if clip.one_shot else _edited(clip)):
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p", threads=1)
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    partial.rename(path)
    return path


def shot_frames(random: np.random.Generator, total: int) -> list[int]:
    """Lengths of the shots of a clip, in frames."""
    median, spread = _SHOT_SECONDS
    lengths: list[int] = []
    while sum(lengths) < total:
        lengths.append(max(FPS // 2, round(FPS * median * float(np.exp(spread * random.standard_normal())))))
    lengths[-1] -= sum(lengths) - total
    return lengths


def _edited(clip: BenchmarkClip) -> Iterator[np.ndarray]:
    """Pictures uint8 [height, width, 3] of several shots, the camera handled differently in each."""
    random = np.random.default_rng(11)
    for shot, length in enumerate(shot_frames(random, clip.seconds * FPS)):
        world = _fractal_noise(random, _WORLD)
        camera = ("tripod", "hand", "pan")[shot % 3]
        yield from _shot(clip, random, world, camera=camera, length=length)


def _shot(
    clip: BenchmarkClip, random: np.random.Generator, world: np.ndarray, *, camera: str, length: int
) -> Iterator[np.ndarray]:
    speed = {"tripod": 0.0, "hand": 25.0, "pan": 180.0}[camera]  # pixels of the world in a second
    shake = {"tripod": 0.0, "hand": 1.5, "pan": 0.5}[camera]
    direction = random.uniform(0, 2 * np.pi)
    span = float(random.uniform(700, 1000))
    centre = np.array([1024.0, 1024.0])
    subjects = [
        (random.uniform(0.2, 0.8, 2), random.uniform(-0.25, 0.25, 2), random.uniform(0.1, 0.3)) for _ in range(3)
    ]
    textures = [_fractal_noise(random, 256) for _ in subjects]
    for number in range(length):
        t = number / FPS
        centre = (
            centre + speed / FPS * np.array([np.sin(direction), np.cos(direction)]) + shake * random.standard_normal(2)
        )
        picture = _view(world, centre, span, clip).astype(np.int16)
        for (place, velocity, size), texture in zip(subjects, textures, strict=True):
            wobble = 0.03 * np.sin(5 * t + 10 * place)
            _paint(picture, texture, place + velocity * t + wobble, size)
        picture += _grain(random, picture.shape)
        yield picture.clip(0, 255).astype(np.uint8)


def _view(world: np.ndarray, centre: np.ndarray, span: float, clip: BenchmarkClip) -> np.ndarray:
    """The part of the world around `centre`, `span` high, as the camera sees it; fractions of pixels count."""
    aspect = clip.width / clip.height
    height, width = int(span), int(span * aspect)
    top, left = (centre - np.array([height, width]) / 2).clip(0, [_WORLD - height - 1, _WORLD - width - 1])
    rows, columns = int(top), int(left)
    down, right = top - rows, left - columns
    part = world[rows : rows + height + 1, columns : columns + width + 1].astype(np.float32)
    part = part[:-1] * (1 - down) + part[1:] * down
    part = part[:, :-1] * (1 - right) + part[:, 1:] * right
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(part.astype(np.uint8)), "rgb24")
    return frame.reformat(clip.width, clip.height, "rgb24", interpolation="BICUBIC", threads=1).to_ndarray()


def _paint(picture: np.ndarray, texture: np.ndarray, place: np.ndarray, size: float) -> None:
    """A textured disc at `place` (fractions of height and width) of `size` (of the height)."""
    height, width = picture.shape[:2]
    radius = int(size * height / 2)
    top, left = int(place[0] * height) - radius, int(place[1] * width) - radius
    y0, x0, y1, x1 = max(0, top), max(0, left), min(height, top + 2 * radius), min(width, left + 2 * radius)
    if y0 >= y1 or x0 >= x1:
        return
    y, x = np.mgrid[y0 - top : y1 - top, x0 - left : x1 - left]
    inside = (y - radius) ** 2 + (x - radius) ** 2 < radius**2
    scale = texture.shape[0] / (2 * radius)
    picture[y0:y1, x0:x1][inside] = texture[(y * scale).astype(int), (x * scale).astype(int)][inside]


def _grain(random: np.random.Generator, shape: tuple[int, ...], *, strength: float = 1.5) -> np.ndarray:
    """Sensor noise, int16, new for each picture: a corner of the cached field chosen at random."""
    height, width = shape[:2]
    field = _GRAIN.setdefault(
        (height, width), np.random.default_rng(3).normal(0, strength, (height + 64, width + 64, 1))
    )
    top, left = random.integers(64, size=2)
    return np.round(field[top : top + height, left : left + width]).astype(np.int16)


_GRAIN: dict[tuple[int, int], np.ndarray] = {}


def _one_shot(clip: BenchmarkClip) -> Iterator[np.ndarray]:
    """A camera pans and zooms over fractal noise with grain while a few discs move, without a cut."""
    random = np.random.default_rng(7)
    world = _fractal_noise(random, _WORLD)
    grain = random.normal(0, 2, (8, clip.height, clip.width, 1)).astype(np.int16)
    y, x = np.mgrid[0 : clip.height, 0 : clip.width] / clip.height
    for number in range(clip.seconds * FPS):
        t = number / FPS
        span = int(900 + 300 * np.sin(0.7 * t))
        top, left = int(400 + 350 * np.sin(0.31 * t)), int(400 + 350 * np.cos(0.23 * t))
        view = av.VideoFrame.from_ndarray(np.ascontiguousarray(world[top : top + span, left : left + span]), "rgb24")
        scaled = view.reformat(clip.width, clip.height, "rgb24", interpolation="BICUBIC", threads=1)
        picture = scaled.to_ndarray().astype(np.int16)
        for disc in range(3):
            centre_y = 0.5 + 0.35 * np.sin(1.3 * t + 2 * disc)
            centre_x = 0.5 * clip.width / clip.height + 0.5 * np.cos(0.9 * t + disc)
            inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < 0.01 * (disc + 1)
            picture[inside] = (60 + 60 * disc, 200 - 50 * disc, 90)
        picture += grain[number % 8]
        yield picture.clip(0, 255).astype(np.uint8)


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


def describe(path: Path) -> str:
    """What decides a planned decode's cost: key pictures, share of references, bits, cost of the references alone."""
    source = path.read_bytes()
    with av.open(io.BytesIO(source)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        bits = 8 * sum(packet.size for packet in packets) / (len(packets) * stream.width * stream.height)
        size = f"{stream.codec_context.name} {stream.width}x{stream.height}"
    (count, whole_s), (references, references_s) = _decode(source, "DEFAULT"), _decode(source, "NONREF")
    return (
        f"{path.name}: {size}, {count} pictures, {len(keys)} key pictures, {references / count:.2f} references, "
        f"{bits:.3f} bits/pixel, references alone cost {references_s / whole_s:.2f}"
    )


def _decode(source: bytes, skip_frame: str) -> tuple[int, float]:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        with av.open(io.BytesIO(source)) as container:
            codec = container.streams.video[0].codec_context
            codec.thread_count, codec.thread_type, codec.skip_frame = 1, "NONE", skip_frame
            count = sum(1 for _ in container.decode(video=0))
        best = min(best, time.process_time() - start)
    return count, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(CLIPS))
    parser.add_argument("--compare", nargs="*", type=Path, default=[], help="real clips to hold these against")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for path in [make_clip(CLIPS[name], arguments.folder) for name in arguments.names] + arguments.compare:
        print(describe(path), flush=True)


if __name__ == "__main__":
    main()
