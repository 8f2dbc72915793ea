"""Clips that cost a decoder what real ones of Kinetics' kind cost: for throughput, not for labels."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidcls_batch.synthetic.encode import encode_mp4
from vidcls_batch.synthetic.motions import LABELS
from vidcls_batch.synthetic.scenes import blow_up, draw_scene
from vidcls_batch.synthetic.shapes import Floats, paint_shape
from vidcls_batch.synthetic.sounds import render_sound, sound_of_label
from vidcls_batch.types import Frames

_SHAPES_PER_CLIP = 5
_PAN_PX = 96  # how far the background may move in a clip, either way


def write_benchmark_clip(
    path: str | Path,
    *,
    seed: int,
    size: tuple[int, int] = (340, 256),
    fps: Fraction | float = 30,
    duration_s: float = 10.0,
    noise: float = 6.0,
) -> None:
    """Write an H.264 + AAC clip: a fine texture that pans, several moving shapes, sensor noise.

    `size` is (width, height) in even pixels, `noise` its standard deviation in grey levels. The defaults gave
    0.9 Mbit/s and 0.65 ms of decoding per frame; two real clips of this size had 0.5 and 1.1 Mbit/s, 0.47 and 0.78 ms.
    The same arguments give the same bytes.
    """
    rate = Fraction(fps).limit_denominator(1001)
    num_frames = max(1, round(duration_s * rate))
    encode_mp4(
        path,
        frames=_frames(seed, size=size, num_frames=num_frames, noise=noise),
        fps=rate,
        samples=render_sound(sound_of_label(LABELS[seed % len(LABELS)]), duration_s=float(num_frames / rate)),
        crf=20,
        key_frame_every=250,
    )


def _frames(seed: int, *, size: tuple[int, int], num_frames: int, noise: float) -> Iterator[Frames]:
    rng = np.random.default_rng([seed, 2])
    width, height = size
    backdrop = _texture(rng, width=width + 2 * _PAN_PX, height=height + 2 * _PAN_PX)
    grain = rng.standard_normal((height + 64, width + 64, 3), dtype=np.float32) * np.float32(noise)
    drift_x, drift_y = rng.uniform(-1, 1, 2)
    labels = rng.choice(LABELS, _SHAPES_PER_CLIP)
    scenes = [draw_scene(str(label), seed=seed * 100 + i, size=size) for i, label in enumerate(labels)]
    for index in range(num_frames):
        t = (index + 0.5) / num_frames
        left = round(_PAN_PX * (1 + drift_x * (2 * t - 1)))
        top = round(_PAN_PX * (1 + drift_y * (2 * t - 1)))
        frame = backdrop[top : top + height, left : left + width].copy()
        for scene in scenes:
            # Each shape repeats its motion four times: ten seconds of one slow move would be too easy to predict.
            pose = scene.path((4 * t) % 1.0)
            paint_shape(
                frame, scene.shape, colour=scene.rgb, radius=scene.radius / 2, pose=pose, angle_deg=scene.angle_deg
            )
        top, left = rng.integers(64, size=2)
        frame += grain[top : top + height, left : left + width]
        np.clip(frame, 0, 255, out=frame)
        yield frame.astype(np.uint8)


def _texture(rng: np.random.Generator, *, width: int, height: int) -> Floats:
    """Noise at halving scales, as natural pictures have: float32 [height, width, 3], 0 to 255."""
    picture = np.full((height, width, 3), 110.0)
    for cells, strength in ((4, 35.0), (12, 30.0), (40, 26.0), (130, 24.0), (260, 20.0)):
        for channel in range(3):
            grid = rng.uniform(-strength, strength, (cells, cells))
            picture[:, :, channel] += blow_up(grid, width=width, height=height)
    return np.clip(picture, 0, 255, out=picture).astype(np.float32)
