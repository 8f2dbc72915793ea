"""A clip's content drawn from a seed, and its frames."""

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.synthetic.motions import LABELS, MOTIONS, NOT_FOR_CIRCLES, Path
from vidcls_batch.synthetic.shapes import COLOURS, SHAPES, Floats, paint_shape
from vidcls_batch.types import Frames

SIZES: tuple[tuple[int, int], ...] = ((160, 120), (120, 160), (176, 144), (192, 108), (128, 128), (160, 90))
"""Width, height in pixels; all even, as yuv420p needs."""

FRAME_RATES: tuple[Fraction, ...] = (
    Fraction(10),
    Fraction(15),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One shape that does one thing before one background."""

    label: str
    shape: str
    colour: str
    width: int
    height: int
    fps: Fraction
    num_frames: int
    path: Path = field(repr=False)
    radius: float  # in units of the shorter side
    angle_deg: float
    rgb: Floats = field(repr=False)
    background: Floats = field(repr=False)  # [height, width, 3], 0 to 255
    noise: float  # standard deviation in grey levels
    seed: int

    @property
    def duration_s(self) -> float:
        """Length of the clip."""
        return float(self.num_frames / self.fps)


def draw_scene(
    label: str,
    *,
    seed: int,
    shape: str | None = None,
    colour: str | None = None,
    size: tuple[int, int] | None = None,
    fps: Fraction | float | None = None,
    duration_s: float | None = None,
) -> Scene:
    """The scene of `label` that `seed` stands for; what is given is kept, the rest is drawn.

    `size` is (width, height) in even pixels. Raises ValueError for an unknown label, shape or colour, and for a circle
    that rotates.
    """
    _known(label, LABELS, "label")
    rng = np.random.default_rng([seed, LABELS.index(label)])
    drawn_shape = str(rng.choice([s for s in SHAPES if label not in NOT_FOR_CIRCLES or s != "circle"]))
    drawn_colour = str(rng.choice(list(COLOURS)))
    drawn_size = SIZES[rng.integers(len(SIZES))]
    drawn_fps = FRAME_RATES[rng.integers(len(FRAME_RATES))]
    drawn_duration_s = rng.uniform(2.0, 3.0)
    shape = drawn_shape if shape is None else _known(shape, SHAPES, "shape")
    colour = drawn_colour if colour is None else _known(colour, COLOURS, "colour")
    if shape == "circle" and label in NOT_FOR_CIRCLES:
        raise ValueError(
            f"a circle shows no rotation; for {label!r} take one of {[s for s in SHAPES if s != 'circle']}"
        )
    width, height = size or drawn_size
    rate = Fraction(fps).limit_denominator(1001) if fps is not None else drawn_fps
    num_frames = max(1, round((duration_s or drawn_duration_s) * rate))
    rgb = np.clip(np.array(COLOURS[colour]) + rng.uniform(-15, 15, 3), 0, 255).astype(np.float32)
    return Scene(
        label=label,
        shape=shape,
        colour=colour,
        width=width,
        height=height,
        fps=rate,
        num_frames=num_frames,
        path=MOTIONS[label](rng),
        radius=float(rng.uniform(0.15, 0.22)),
        angle_deg=float(rng.uniform(0.0, 360.0)),
        rgb=rgb,
        background=_draw_background(rng, width=width, height=height, unlike=rgb),
        noise=float(rng.uniform(0.0, 10.0)),
        seed=seed,
    )


def render_frames(scene: Scene) -> Iterator[Frames]:
    """The scene's frames in order, uint8 [height, width, 3] RGB."""
    rng = np.random.default_rng([scene.seed, 1])
    # Noise is cut from one larger sheet at random places: drawing it afresh would be half of the rendering time.
    sheet = rng.standard_normal((scene.height + 64, scene.width + 64, 3), dtype=np.float32) * np.float32(scene.noise)
    for index in range(scene.num_frames):
        frame = scene.background.copy()
        pose = scene.path((index + 0.5) / scene.num_frames)
        paint_shape(frame, scene.shape, colour=scene.rgb, radius=scene.radius, pose=pose, angle_deg=scene.angle_deg)
        top, left = rng.integers(64, size=2)
        frame += sheet[top : top + scene.height, left : left + scene.width]
        np.clip(frame, 0, 255, out=frame)
        yield frame.astype(np.uint8)


def _draw_background(rng: np.random.Generator, *, width: int, height: int, unlike: Floats) -> Floats:
    kind = str(rng.choice(["solid", "gradient", "texture"]))
    base = _muted_colour(rng, unlike)
    background = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
    if kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        ramp = np.cos(angle) * np.linspace(-1, 1, width)[None, :] + np.sin(angle) * np.linspace(-1, 1, height)[:, None]
        background = background + (ramp[:, :, None] * rng.uniform(12, 28)).astype(np.float32)
    elif kind == "texture":
        cells = rng.uniform(-1, 1, (int(rng.integers(4, 12)), int(rng.integers(4, 12))))
        background = background + (blow_up(cells, width=width, height=height)[:, :, None] * rng.uniform(12, 30)).astype(
            np.float32
        )
    return np.clip(background, 0, 255)


def _muted_colour(rng: np.random.Generator, unlike: Floats) -> Floats:
    while True:
        colour = (rng.uniform(15, 200) + rng.uniform(-25, 25, 3)).astype(np.float32)
        if float(np.linalg.norm(colour - unlike)) > 130:
            return colour


def blow_up(cells: NDArray[np.float64], *, width: int, height: int) -> NDArray[np.float64]:
    """Bilinear blow-up of a small grid to [height, width]."""
    rows = np.linspace(0, cells.shape[0] - 1, height)
    columns = np.linspace(0, cells.shape[1] - 1, width)
    tall = np.stack([np.interp(rows, np.arange(cells.shape[0]), column) for column in cells.T], axis=1)
    return np.stack([np.interp(columns, np.arange(cells.shape[1]), row) for row in tall])


def _known(name: str, known: Collection[str], what: str) -> str:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}")
    return name
