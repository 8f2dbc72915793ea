"""Would frames better cross to the classifier as yuv420p? `python benchmarks/yuv_handover.py FILE ...`

CPU time, one thread, median of the repetitions, for 16 frames of 224 x 224: decoding with the conversion to RGB, and
with the planes packed instead; a copy of each into shared memory, as the object store makes; and the conversion where
the model runs (here torch on the CPU: what a GPU would take over). Ends with how far the two ways' pictures are apart.
"""

import argparse
import mmap
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from av.video.frame import VideoFrame

from vidcls_batch.types import DecodeLimits, FrameRequest, Sampling
from vidcls_batch.video.decode import decode_into
from vidcls_batch.video.decoders.base import Decoder, make_decoder
from vidcls_batch.video.geometry import PictureShape, cover_crop
from vidcls_batch.video.rescale import Rescaler

SIZE, NUM_FRAMES = 224, 16
REQUEST = FrameRequest((Sampling(NUM_FRAMES),), SIZE, SIZE)


class PlanarRescaler(Rescaler):
    """Leaves pictures in YUV: luma, then both chroma planes at half the size, in the first half of an RGB row."""

    def write(self, picture: VideoFrame, *, sample_aspect: float, out: np.ndarray) -> None:
        shape = PictureShape(picture.width, picture.height, sample_aspect, picture.rotation)
        plan = cover_crop(shape, height=SIZE, width=SIZE)
        scaled = self._scale.reformat(
            picture,
            width=plan.scaled_width,
            height=plan.scaled_height,
            format="yuv420p",
            interpolation="BILINEAR",
            threads=1,
        )
        flat, at = out.reshape(-1), 0
        for number, plane in enumerate(scaled.planes):
            half = 1 if number == 0 else 2
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            top, left, side = plan.top // half, plan.left // half, SIZE // half
            part = rows[top : top + side, left : left + side]
            flat[at : at + side * side] = part.reshape(-1)
            at += side * side


def yuv_to_rgb(packed: torch.Tensor) -> torch.Tensor:
    """uint8 [N, SIZE * SIZE * 3 / 2] of BT.601 limited range to uint8 [N, SIZE, SIZE, 3], in float on its device."""
    area = SIZE * SIZE
    luma = packed[:, :area].view(-1, 1, SIZE, SIZE).float()
    chroma = packed[:, area : area * 3 // 2].view(-1, 2, SIZE // 2, SIZE // 2).float()
    chroma = torch.nn.functional.interpolate(chroma, size=(SIZE, SIZE), mode="bilinear") - 128
    y, u, v = (luma[:, 0] - 16) * (255 / 219), chroma[:, 0] * (255 / 224), chroma[:, 1] * (255 / 224)
    rgb = torch.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], dim=-1)
    return rgb.round_().clamp_(0, 255).to(torch.uint8)


def cpu_ms(work: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for path in arguments.files:
        compare(path, arguments.repetitions)


def compare(path: Path, repetitions: int) -> None:
    source = path.read_bytes()
    rgb = np.zeros(REQUEST.frames_shape, np.uint8)
    yuv = np.zeros(REQUEST.frames_shape, np.uint8)
    as_rgb, as_yuv = (make_decoder("pyav", height=SIZE, width=SIZE) for _ in range(2))
    as_yuv._rescaler = PlanarRescaler(height=SIZE, width=SIZE)

    def decode(decoder: Decoder, out: np.ndarray) -> Callable[[], object]:
        return lambda: decode_into(out, source, decoder=decoder, request=REQUEST, limits=DecodeLimits())

    pairs = [(cpu_ms(decode(as_rgb, rgb), 1), cpu_ms(decode(as_yuv, yuv), 1)) for _ in range(repetitions)]
    decode_rgb, decode_yuv = (statistics.median(times) for times in zip(*pairs, strict=True))
    packed = np.ascontiguousarray(yuv.reshape(NUM_FRAMES, -1)[:, : SIZE * SIZE * 3 // 2])
    shared = np.frombuffer(mmap.mmap(-1, rgb.nbytes), np.uint8)

    def copy(block: np.ndarray) -> None:
        shared[: block.nbytes] = block.reshape(-1)

    on_device = yuv_to_rgb(torch.from_numpy(packed)).numpy()
    apart = np.abs(on_device.astype(int) - rgb).mean()
    print(
        f"{path.name}: decode {decode_rgb:.1f} ms to RGB, {decode_yuv:.1f} to yuv420p; copying {rgb.nbytes >> 10} KB "
        f"{cpu_ms(lambda: copy(rgb), 50):.2f} ms, {packed.nbytes >> 10} KB {cpu_ms(lambda: copy(packed), 50):.2f} ms; "
        f"conversion by torch {cpu_ms(lambda: yuv_to_rgb(torch.from_numpy(packed)), 10):.1f} ms; "
        f"pictures {apart:.2f} grey levels apart",
        flush=True,
    )


if __name__ == "__main__":
    main()
