"""What a shape does in a clip: the labels of the synthetic world, one function of time each."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a shape is at one instant.

    `x`, `y`: its centre, in units of the picture's shorter side from the picture's centre, right and down positive.
    `scale` multiplies its radius; `angle_deg` turns it, clockwise positive.
    """

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    angle_deg: float = 0.0
    visible: bool = True


Path = Callable[[float], Pose]
"""Pose at time t, 0 at the clip's start and 1 at its end."""

# Centres stay in [-REACH, REACH]: models see the centre square of a wide picture and the shape must stay in it.
REACH = 0.33


def _moving(dx: int, dy: int) -> Callable[[np.random.Generator], Path]:
    def draw(rng: np.random.Generator) -> Path:
        distance = rng.uniform(0.32, 0.62)
        start = -rng.uniform(distance - REACH, REACH)
        across = rng.uniform(-0.2, 0.2)

        def path(t: float) -> Pose:
            along = start + distance * t
            return Pose(x=dx * along + abs(dy) * across, y=dy * along + abs(dx) * across)

        return path

    return draw


def _scaling(*, grows: bool) -> Callable[[np.random.Generator], Path]:
    def draw(rng: np.random.Generator) -> Path:
        x, y = rng.uniform(-0.15, 0.15, 2)
        small = rng.uniform(0.45, 0.65)
        large = rng.uniform(1.15, 1.45)
        first, last = (small, large) if grows else (large, small)
        return lambda t: Pose(x=x, y=y, scale=first * (last / first) ** t)

    return draw


def _rotating(rng: np.random.Generator) -> Path:
    x, y = rng.uniform(-0.15, 0.15, 2)
    # Either way round: at 56 pixels a VideoMAE that knew all other motions could not tell one from the other.
    turn = rng.uniform(90.0, 180.0) * rng.choice([-1.0, 1.0])
    return lambda t: Pose(x=x, y=y, scale=1.15, angle_deg=turn * t)


def _bouncing(rng: np.random.Generator) -> Path:
    x = rng.uniform(-0.2, 0.2)
    height = rng.uniform(0.3, 0.5)
    hops = rng.uniform(1.2, 2.0)  # eight frames cannot follow more: it would look like an orbit from the side
    phase = rng.uniform(0.0, 1.0)
    return lambda t: Pose(x=x, y=0.25 - height * abs(math.sin(math.pi * (hops * t + phase))))


def _blinking(rng: np.random.Generator) -> Path:
    x, y = rng.uniform(-0.2, 0.2, 2)
    blinks = rng.uniform(1.7, 3.4)
    phase = rng.uniform(0.0, 1.0)
    return lambda t: Pose(x=x, y=y, visible=(blinks * t + phase) % 1.0 < 0.55)


def _orbiting(rng: np.random.Generator) -> Path:
    radius = rng.uniform(0.17, 0.27)
    turns = rng.uniform(0.9, 1.5) * rng.choice([-1.0, 1.0])
    phase = rng.uniform(0.0, 1.0)

    def path(t: float) -> Pose:
        angle = 2.0 * math.pi * (turns * t + phase)
        return Pose(x=radius * math.cos(angle), y=radius * math.sin(angle))

    return path


def _standing_still(rng: np.random.Generator) -> Path:
    x, y = rng.uniform(-0.25, 0.25, 2)
    return lambda t: Pose(x=x, y=y)


MOTIONS: dict[str, Callable[[np.random.Generator], Path]] = {
    "moving left": _moving(-1, 0),
    "moving right": _moving(1, 0),
    "moving up": _moving(0, -1),
    "moving down": _moving(0, 1),
    "growing": _scaling(grows=True),
    "shrinking": _scaling(grows=False),
    "rotating": _rotating,
    "bouncing": _bouncing,
    "blinking": _blinking,
    "orbiting": _orbiting,
    "standing still": _standing_still,
}
"""Label -> draws one such path."""

LABELS: tuple[str, ...] = tuple(MOTIONS)
"""The motions in label-id order."""

NOT_FOR_CIRCLES: frozenset[str] = frozenset({"rotating"})
"""Motions a circle cannot show."""
