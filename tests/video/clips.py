"""Small videos with known content, made by PyAV: frame n carries the number n in its pixels."""

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FPS, COUNT = 160, 120, 30, 90
LOUDNESS = 0.3
_BITS, _BLOCK = 8, 16  # the number, most significant bit first, as white and black blocks along the top


def draw(number: int, *, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """RGB uint8 [height, width, 3]: moving texture under the frame's number."""
    y, x = np.mgrid[0:height, 0:width]
    texture = 128 + 60 * np.sin((x + 3 * number) / 9.0) * np.cos((y - 2 * number) / 7.0)
    picture = np.stack([texture, np.roll(texture, 5, axis=1), np.roll(texture, 7, axis=0)], axis=-1)
    for bit in range(_BITS):
        value = 235 if number >> (_BITS - 1 - bit) & 1 else 16
        picture[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = value
    return picture.clip(0, 255).astype(np.uint8)


def number_in(picture: np.ndarray, *, width: int = WIDTH) -> int:
    """The number drawn into a decoded picture of the original shape, at any scale."""
    block = _BLOCK * picture.shape[1] / width
    centres = [round((bit + 0.5) * block) for bit in range(_BITS)]
    bits = [picture[round(block / 2), centre].mean() > 128 for centre in centres]
    return sum(int(bit) << (_BITS - 1 - i) for i, bit in enumerate(bits))


@dataclass(frozen=True)
class Recipe:
    """How a clip is encoded and muxed."""

    container: str = "mp4"
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    count: int = COUNT
    width: int = WIDTH
    height: int = HEIGHT
    gop: int = 30
    first_pts: int = 0
    pts: Callable[[int], int] | None = None  # frame number -> pts in 1/FPS; default n
    rotation: int | None = None
    num_streams: int = 1
    audio: bool = False
    colour: dict[str, int] = field(default_factory=dict)
    bit_rate: int | None = None


def encode(recipe: Recipe) -> bytes:
    """The file's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        _encode_to(path, recipe)
        return path.read_bytes()


def _encode_to(path: Path, recipe: Recipe) -> None:
    with av.open(str(path), "w", format=recipe.container, options=recipe.container_options) as out:
        streams = [_video_stream(out, recipe) for _ in range(recipe.num_streams)]
        sound = out.add_stream("aac", rate=16000) if recipe.audio else None
        if sound is not None:
            sound.layout = "mono"
        for number in range(recipe.count):
            for offset, stream in enumerate(streams):
                out.mux(stream.encode(_frame(number + 100 * offset, number, recipe)))
            if sound is not None:
                out.mux(_tone(sound, number))
        for stream in [*streams, *([sound] if sound is not None else [])]:
            out.mux(stream.encode(None))


def _video_stream(out: av.container.OutputContainer, recipe: Recipe) -> av.VideoStream:
    stream = out.add_stream(recipe.codec, rate=FPS, options=recipe.options)
    stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, recipe.pix_fmt
    codec = stream.codec_context
    codec.time_base = Fraction(1, FPS)
    codec.gop_size = recipe.gop
    codec.thread_count = 1
    if recipe.bit_rate:
        codec.bit_rate = recipe.bit_rate
    for name, value in recipe.colour.items():
        setattr(codec, name, value)
    if recipe.rotation is not None:
        stream.set_display_rotation(recipe.rotation)
    return stream


def _frame(drawn: int, number: int, recipe: Recipe) -> av.VideoFrame:
    rgb = av.VideoFrame.from_ndarray(draw(drawn, width=recipe.width, height=recipe.height), format="rgb24")
    frame = rgb.reformat(format=recipe.pix_fmt, interpolation="BICUBIC", threads=1)
    frame.pts = recipe.first_pts + (recipe.pts(number) if recipe.pts else number)
    frame.time_base = Fraction(1, FPS)
    frame.pict_type = 0
    return frame


def _tone(stream: av.AudioStream, number: int) -> list[av.Packet]:
    samples = 16000 // FPS
    t = (np.arange(samples) + number * samples) / 16000
    frame = av.AudioFrame.from_ndarray(
        (LOUDNESS * np.sin(2 * np.pi * 440 * t)).astype(np.float32)[None], format="fltp", layout="mono"
    )
    frame.sample_rate, frame.pts, frame.time_base = 16000, number * samples, Fraction(1, 16000)
    return stream.encode(frame)


def remux(
    data: bytes,
    *,
    container: str,
    options: dict[str, str] | None = None,
    shift: int = 0,
    keep: Callable[[int], bool] = lambda n: True,
) -> bytes:
    """Copy packets into another container; `shift` is added to times (ticks), `keep` chooses packets by number."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(file, "w", format=container, options=options or {}) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            if packet.dts is None or not keep(number):
                continue
            packet.pts += shift
            packet.dts += shift
            packet.stream = copy
            out.mux(packet)
    return file.getvalue()


def damaged(data: bytes, *, start: float, stop: float = 1.0, bursts: int, length: int = 64, seed: int = 1) -> bytes:
    """`data` with `bursts` runs of random bytes between the fractions `start` and `stop`."""
    random = np.random.default_rng(seed)
    broken = bytearray(data)
    for _ in range(bursts):
        at = int(random.integers(int(len(data) * start), int(len(data) * stop) - length))
        broken[at : at + length] = random.bytes(length)
    return bytes(broken)


def audio_only(container: str = "mp4") -> bytes:
    """One second of a tone, no video."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        sound = out.add_stream("aac", rate=16000)
        sound.layout = "mono"
        for number in range(FPS):
            out.mux(_tone(sound, number))
        out.mux(sound.encode(None))
    return file.getvalue()


def index_sets(count: int, *, sets: int, seed: int = 0) -> Iterator[Sequence[int]]:
    """Ascending, distinct index sets over `count` frames: ends, neighbours, uniform, strides, random."""
    random = np.random.default_rng(seed)
    fixed = [
        [0],
        [count - 1],
        sorted({0, count - 1}),
        list(range(min(count, 16))),
        list(range(max(0, count - 8), count)),
    ]
    fixed += [sorted({int((i + 0.5) * count / t) for i in range(t)}) for t in (1, 3, 8, 16, 32)]
    fixed += [list(range(start, count, step)) for start, step in ((0, 2), (1, 4), (0, 7), (count // 2, 3))]
    yield from (s for s in fixed if s)
    for _ in range(max(0, sets - len(fixed))):
        size = int(random.integers(1, min(count, 20) + 1))
        yield sorted(random.choice(count, size=size, replace=False).tolist())
