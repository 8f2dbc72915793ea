"""Files a video data set should not hold and does."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidcls_batch.errors import Status
from vidcls_batch.synthetic.clips import write_clip
from vidcls_batch.synthetic.encode import encode_mp4
from vidcls_batch.synthetic.sounds import Sound, render_sound


@dataclass(frozen=True, slots=True)
class BrokenKind:
    """`write` puts the file at a path; `status` is what a run must say of it."""

    write: Callable[[Path, int], None]
    status: Status


def _zero_byte(path: Path, seed: int) -> None:
    path.write_bytes(b"")


def _truncated(path: Path, seed: int) -> None:
    """A clip cut off before its index, which an MP4 has at its end: nothing in it can be found."""
    write_clip(path, label="moving left", seed=seed)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _garbage(path: Path, seed: int) -> None:
    path.write_bytes(np.random.default_rng(seed).bytes(20_000))


def _audio_only(path: Path, seed: int) -> None:
    encode_mp4(path, frames=None, fps=Fraction(25), samples=render_sound(Sound("steady"), duration_s=2.0))


def _text(path: Path, seed: int) -> None:
    path.write_text("<html><body>404: the video you asked for is gone</body></html>\n" * 20, encoding="utf-8")


def _missing(path: Path, seed: int) -> None:
    path.unlink(missing_ok=True)


BROKEN_KINDS: dict[str, BrokenKind] = {
    "zero_byte": BrokenKind(_zero_byte, Status.DECODE_ERROR),
    "truncated": BrokenKind(_truncated, Status.DECODE_ERROR),
    "garbage": BrokenKind(_garbage, Status.DECODE_ERROR),
    "audio_only": BrokenKind(_audio_only, Status.NO_VIDEO),
    "text": BrokenKind(_text, Status.DECODE_ERROR),
    "missing": BrokenKind(_missing, Status.FETCH_ERROR),
}


def write_broken_file(path: str | Path, *, kind: str, seed: int = 0) -> Status:
    """Put a file of `kind` (one of BROKEN_KINDS) at `path`; returns the status a run must give it."""
    if kind not in BROKEN_KINDS:
        raise ValueError(f"unknown kind of broken file {kind!r}. Known: {', '.join(BROKEN_KINDS)}")
    BROKEN_KINDS[kind].write(Path(path), seed)
    return BROKEN_KINDS[kind].status
