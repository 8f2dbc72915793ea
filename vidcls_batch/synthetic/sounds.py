"""Tones with a pattern in time: what a synthetic clip sounds like."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.synthetic.motions import LABELS

SAMPLE_RATE = 44_100

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sound:
    """A tone of `pitch_hz` shaped by `pattern`, one of PATTERNS."""

    pattern: str
    pitch_hz: float = 440.0

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise ValueError(f"unknown sound pattern {self.pattern!r}. Known: {', '.join(PATTERNS)}")
        if not 20.0 <= self.pitch_hz <= 8000.0:
            raise ValueError(f"pitch_hz is {self.pitch_hz}; take 20 to 8000")


Doubles = NDArray[np.float64]
Pattern = Callable[[Doubles], tuple[Doubles, Doubles]]
"""Time in seconds -> (pitch factor, loudness 0 to 1), each as long as the time."""


def _steady(t: Doubles) -> tuple[Doubles, Doubles]:
    return np.ones_like(t), np.ones_like(t)


def _rising(t: Doubles) -> tuple[Doubles, Doubles]:
    return 2.0 ** (t / t[-1]), np.ones_like(t)


def _falling(t: Doubles) -> tuple[Doubles, Doubles]:
    return 2.0 ** (-t / t[-1]), np.ones_like(t)


def _pulsing(t: Doubles) -> tuple[Doubles, Doubles]:
    return np.ones_like(t), (t * 4.0 % 1.0 < 0.5).astype(np.float64)


def _warbling(t: Doubles) -> tuple[Doubles, Doubles]:
    return 1.0 + 0.15 * np.sin(2 * np.pi * 6.0 * t), np.ones_like(t)


def _silent(t: Doubles) -> tuple[Doubles, Doubles]:
    return np.ones_like(t), np.zeros_like(t)


PATTERNS: dict[str, Pattern] = {
    "steady": _steady,
    "rising": _rising,
    "falling": _falling,
    "pulsing": _pulsing,
    "warbling": _warbling,
    "silent": _silent,
}


def sound_of_label(label: str) -> Sound:
    """The sound a clip of `label` has unless it is given another: no two labels share one."""
    index = LABELS.index(label)
    audible = [p for p in PATTERNS if p != "silent"]
    return Sound(pattern=audible[index % len(audible)], pitch_hz=330.0 * 2 ** (index / 6))


def render_sound(sound: Sound, *, duration_s: float, sample_rate: int = SAMPLE_RATE) -> Samples:
    """Mono samples in [-1, 1], float32 [round(duration_s * sample_rate)]."""
    t = (np.arange(max(2, round(duration_s * sample_rate))) + 1) / sample_rate
    factor, loudness = PATTERNS[sound.pattern](t)
    phase = 2 * np.pi * np.cumsum(factor * sound.pitch_hz) / sample_rate
    samples: Samples = (0.3 * loudness * np.sin(phase)).astype(np.float32)
    return samples
