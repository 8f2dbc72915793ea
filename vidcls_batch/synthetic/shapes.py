"""Shapes as signed distances and colours by name."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.synthetic.motions import Pose

Floats = NDArray[np.float32]
Distance = Callable[[Floats, Floats], Floats]
"""Signed distance to the outline in units of the shape's radius, negative inside; x right, y down."""


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - np.float32(0.85)


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.75)


def _triangle(x: Floats, y: Floats) -> Floats:
    half_sqrt3 = np.float32(math.sqrt(3) / 2)
    return np.maximum(y, np.maximum(half_sqrt3 * x - y / 2, -half_sqrt3 * x - y / 2)) - np.float32(0.55)


def _star(x: Floats, y: Floats) -> Floats:
    sector = 2 * math.pi / 5
    radius = np.hypot(x, y)
    angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
    # Folded into half a point, the outline is one line: from the tip to the notch beside it.
    tip, notch = 1.15, 0.48
    edge_x, edge_y = notch * math.cos(sector / 2) - tip, notch * math.sin(sector / 2)
    length = math.hypot(edge_x, edge_y)
    folded_x, folded_y = radius * np.cos(angle), radius * np.sin(angle)
    return (((folded_x - tip) * edge_y - folded_y * edge_x) / length).astype(np.float32)


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    return np.maximum(np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height))


def _cross(x: Floats, y: Floats) -> Floats:
    return np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95))


def _bar(x: Floats, y: Floats) -> Floats:
    return _box(x, y, 1.1, 0.35)


SHAPES: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "bar": _bar,
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "purple": (190, 60, 210),
    "white": (240, 240, 240),
}
"""Name -> RGB, 0 to 255."""


def paint_shape(frame: Floats, shape: str, *, colour: Floats, radius: float, pose: Pose, angle_deg: float) -> None:
    """Draw `shape` into `frame` [H, W, 3] in place, edges antialiased; `radius` in units of the shorter side."""
    if not pose.visible:
        return
    height, width = frame.shape[:2]
    side = min(height, width)
    radius_px = radius * pose.scale * side
    centre_x = width / 2 + pose.x * side
    centre_y = height / 2 + pose.y * side
    reach = math.ceil(1.25 * radius_px) + 1
    left, right = max(0, math.floor(centre_x) - reach), min(width, math.ceil(centre_x) + reach)
    top, bottom = max(0, math.floor(centre_y) - reach), min(height, math.ceil(centre_y) + reach)
    if left >= right or top >= bottom:
        return
    dx = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - centre_x)) / np.float32(radius_px)
    dy = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - centre_y)) / np.float32(radius_px)
    angle = math.radians(angle_deg + pose.angle_deg)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    distance = SHAPES[shape](cos * dx + sin * dy[:, None], -sin * dx + cos * dy[:, None])
    cover = np.clip(np.float32(0.5) - distance * np.float32(radius_px), 0, 1)[:, :, None]
    patch = frame[top:bottom, left:right]
    patch += cover * (colour - patch)
