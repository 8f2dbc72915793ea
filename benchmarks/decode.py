"""CPU cost of 16 frames of 224 x 224 out of a clip, ways side by side: `python benchmarks/decode.py FOLDER`.

One thread each, interleaved, CPU time of this process and of its decoder child, the least of the repetitions: other
processes on the machine only ever add to it. 1.00 is libavcodec (PyAV's) decoding the whole clip to nothing. Clips come
from benchmarks/clips.py.
"""

import argparse
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from clips import CLIPS, make_clip

from vidcls_batch.types import DecodeLimits, FrameRequest, Sampling
from vidcls_batch.video.decode import decode_into
from vidcls_batch.video.decoders.base import make_decoder
from vidcls_batch.video.sandbox import SandboxedDecoder

SIZE, NUM_FRAMES = 224, 16
REQUEST = FrameRequest((Sampling(NUM_FRAMES),), SIZE, SIZE)
LIMITS = DecodeLimits(timeout_s=600)
Way = Callable[[bytes], object]


def whole_clip_to_nothing(source: bytes) -> int:
    """The yardstick."""
    with av.open(io.BytesIO(source)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        return sum(1 for _ in container.decode(stream))


def references_only(source: bytes) -> int:
    """The limit: what nobody refers to is not decoded at all; no frame is converted, none is right by itself."""
    with av.open(io.BytesIO(source)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        stream.codec_context.skip_frame = "NONREF"
        return sum(1 for _ in container.decode(stream))


def ours(backend: str) -> Way:
    decoder = make_decoder(backend, height=SIZE, width=SIZE)
    out = np.zeros(REQUEST.frames_shape, np.uint8)
    return lambda source: decode_into(out, source, decoder=decoder, request=REQUEST, limits=LIMITS)


def sandboxed(decoder: SandboxedDecoder) -> Way:
    out = np.zeros(REQUEST.frames_shape, np.uint8)
    return lambda source: decoder.decode(source, out=out)


def segment_centres(count: int) -> list[int]:
    return [int((i + 0.5) * count / NUM_FRAMES) for i in range(NUM_FRAMES)]


def decord_scaled(source: bytes, height: int, width: int) -> np.ndarray:
    import decord

    scale = SIZE / min(height, width)
    reader = decord.VideoReader(
        io.BytesIO(source), width=round(width * scale / 2) * 2, height=round(height * scale / 2) * 2, num_threads=1
    )
    frames = reader.get_batch(segment_centres(len(reader))).asnumpy()
    top, left = (frames.shape[1] - SIZE) // 2, (frames.shape[2] - SIZE) // 2
    return np.ascontiguousarray(frames[:, top : top + SIZE, left : left + SIZE])


def torchcodec_alone(seek_mode: str) -> Way:
    import torch
    from torch.nn.functional import interpolate
    from torchcodec.decoders import VideoDecoder

    torch.set_num_threads(1)

    def decode(source: bytes) -> object:
        reader = VideoDecoder(source, num_ffmpeg_threads=1, seek_mode=seek_mode)
        frames = reader.get_frames_at(segment_centres(len(reader))).data
        height, width = frames.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = frames[..., top : top + side, left : left + side]
        return interpolate(square, (SIZE, SIZE), mode="bilinear", antialias=True)

    return decode


def cpu_seconds(way: Way, source: bytes, child: psutil.Process | None, *, least_s: float = 0.4) -> float:
    """CPU seconds of one call: mean over as many as take `least_s`."""

    def spent() -> float:
        own = time.process_time()
        return own if child is None else own + sum(child.cpu_times()[:2])

    calls, start = 0, spent()
    while calls == 0 or spent() - start < least_s:
        way(source)
        calls += 1
    return (spent() - start) / calls


def measure(path: Path, repetitions: int) -> dict[str, float]:
    source = path.read_bytes()
    with SandboxedDecoder(REQUEST, limits=LIMITS) as decoder, av.open(str(path)) as container:
        height, width = container.streams.video[0].height, container.streams.video[0].width
        ways: dict[str, Way] = {
            "libavcodec, all": whole_clip_to_nothing,
            "references only": references_only,
            "pyav": ours("pyav"),
            "pyav, sandboxed": sandboxed(decoder),
            "pyav-sequential": ours("pyav-sequential"),
        }
        others = {
            "decord": lambda: lambda s: decord_scaled(s, height, width),
            "torchcodec exact": lambda: torchcodec_alone("exact"),
            "torchcodec approximate": lambda: torchcodec_alone("approximate"),
        }
        for name, make in others.items():
            try:
                way = make()
                way(source)
            except (ImportError, RuntimeError, OSError) as error:
                print(f"  {name}: cannot decode this ({type(error).__name__})")
            else:
                ways[name] = way
        ways["pyav, sandboxed"](source)
        child = psutil.Process().children(recursive=True)[-1]
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repetitions):
            for name, way in ways.items():
                seconds[name].append(cpu_seconds(way, source, child if name == "pyav, sandboxed" else None))
    return {name: min(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(CLIPS))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    versions = {name: version(name) for name in ("av", "decord", "torchcodec") if _is_installed(name)}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {versions}")
    results = {}
    for name in arguments.names:
        path = arguments.folder / name
        seconds = measure(path if path.exists() else make_clip(CLIPS[name], arguments.folder), arguments.repetitions)
        results[name] = seconds
        whole, planned = seconds["libavcodec, all"], seconds["pyav"]
        print(f"{name}: libavcodec decodes all of it in {whole * 1000:.1f} ms")
        for way, value in seconds.items():
            ratios = f"{value / whole:5.2f} of libavcodec   pyav is {planned / value:.2f} of it"
            print(f"  {way:24s} {value * 1000:8.1f} ms   {ratios}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"versions": versions, "cpu_seconds": results}, indent=2))


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
