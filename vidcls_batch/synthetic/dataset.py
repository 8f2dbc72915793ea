"""A folder of clips with known labels, and its manifest."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from vidcls_batch.synthetic.broken import BROKEN_KINDS, write_broken_file
from vidcls_batch.synthetic.captions import UNSEEN_PAIRS, caption
from vidcls_batch.synthetic.clips import write_clip
from vidcls_batch.synthetic.motions import LABELS, NOT_FOR_CIRCLES
from vidcls_batch.synthetic.shapes import COLOURS, SHAPES

Pairs = Literal["any", "seen", "unseen"]
"""Which (colour, motion) pairs a data set shows: all, all but UNSEEN_PAIRS, or only those."""


@dataclass(frozen=True, slots=True)
class _PlannedClip:
    path: Path
    label: str
    shape: str
    colour: str
    seed: int


def write_dataset(
    folder: str | Path,
    *,
    num_clips: int,
    seed: int,
    broken: bool = False,
    pairs: Pairs = "any",
    manifest: str = "manifest.csv",
    num_workers: int = 1,
) -> Path:
    """Write `num_clips` clips, their labels in turn, into `folder` and return the path of their manifest.

    `manifest` is its name, CSV or Parquet by the suffix. Columns: clip_id, uri (absolute), true_label, shape, colour,
    pair (seen or unseen), caption, motion_caption, colour_caption, broken. With `broken`, one file of each of
    BROKEN_KINDS is added: its kind stands in the column `broken`, its truth columns are null. Data sets of different
    seeds share no clip.
    """
    import pandas as pd

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    clips = list(_plan_clips(folder, num_clips=num_clips, seed=seed, pairs=pairs))
    if num_workers == 1:
        for clip in clips:
            _write(clip)
    else:
        # Spawned, not forked: the caller may hold threads of torch or Ray, which a fork would copy in mid-lock.
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(_write, clips, chunksize=16))
    rows: list[dict[str, str | None]] = [_row(clip) for clip in clips]
    if broken:
        for kind in BROKEN_KINDS:
            path = folder / f"broken-{kind}.mp4"
            write_broken_file(path, kind=kind, seed=seed)
            rows.append({"clip_id": f"broken-{kind}", "uri": str(path), "broken": kind})
    table = pd.DataFrame(rows, columns=_COLUMNS)
    path = folder / manifest
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)
    return path


_COLUMNS = [
    "clip_id",
    "uri",
    "true_label",
    "shape",
    "colour",
    "pair",
    "caption",
    "motion_caption",
    "colour_caption",
    "broken",
]


def _plan_clips(folder: Path, *, num_clips: int, seed: int, pairs: Pairs) -> Iterator[_PlannedClip]:
    rng = np.random.default_rng(seed)
    for index in range(num_clips):
        label = LABELS[index % len(LABELS)]
        colours = [c for c in COLOURS if pairs == "any" or ((c, label) in UNSEEN_PAIRS) == (pairs == "unseen")]
        shapes = [s for s in SHAPES if label not in NOT_FOR_CIRCLES or s != "circle"]
        yield _PlannedClip(
            path=folder / f"clip-{index:05d}.mp4",
            label=label,
            shape=str(rng.choice(shapes)),
            colour=str(rng.choice(colours)),
            seed=seed * 1_000_000 + index,
        )


def _write(clip: _PlannedClip) -> None:
    write_clip(clip.path, label=clip.label, seed=clip.seed, shape=clip.shape, colour=clip.colour)


def _row(clip: _PlannedClip) -> dict[str, str | None]:
    return {
        "clip_id": clip.path.stem,
        "uri": str(clip.path),
        "true_label": clip.label,
        "shape": clip.shape,
        "colour": clip.colour,
        "pair": "unseen" if (clip.colour, clip.label) in UNSEEN_PAIRS else "seen",
        "caption": caption(label=clip.label, shape=clip.shape, colour=clip.colour),
        "motion_caption": caption(label=clip.label),
        "colour_caption": caption(label=clip.label, colour=clip.colour),
        "broken": None,
    }
