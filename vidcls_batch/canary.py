"""A second look at a few clips: the committed rows must say what the same clips score when they are labeled again.

A re-ordered batch, a wrong join or a member that depends on its batch's other clips puts good labels on wrong clips
and leaves no trace in the row counts; this finds it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from vidcls_batch.dataset.commit import read_predictions
from vidcls_batch.dataset.plan import Plan, read_unit
from vidcls_batch.errors import Status, VerificationError
from vidcls_batch.pipeline import UnitShare
from vidcls_batch.storage import Store

ROUTE = -1  # the unit number of canary rows: never committed
# Other batch sizes choose other kernels: fp32 differs in the sixth digit, bf16 in the third.
TOLERANCE = {"cpu": 2e-3, "cuda": 3e-2}


@dataclass(frozen=True, slots=True)
class Canary:
    """Clips to be labeled twice: unit of each clip id."""

    units: dict[str, int]

    @property
    def shares(self) -> list[UnitShare]:
        """The clips as work for the end of the pipeline."""
        return [UnitShare(unit=u, attempts=1, clip_ids=(clip_id,), route=ROUTE) for clip_id, u in self.units.items()]


def choose_canary(units: Sequence[int], *, store: Store, plan: Plan, num_clips: int) -> Canary:
    """Up to `num_clips` clips from as many of `units` as possible; the same ones for the same plan and units."""
    chooser = random.Random(plan.fingerprint)
    chosen: dict[str, int] = {}
    for unit in chooser.sample(list(units), min(len(units), num_clips)):
        ids = read_unit(store, unit)["clip_id"]
        share = max(1, num_clips // min(len(units), num_clips))
        for position in chooser.sample(range(len(ids)), min(share, len(ids))):
            chosen[ids[position].as_py()] = unit
    return Canary(dict(list(chosen.items())[:num_clips]))


def check_canary(canary: Canary, again: pa.Table, *, store: Store, device: str) -> list[str]:
    """Compare second labels with the committed rows. Returns warnings; raises VerificationError when they differ."""
    warnings, differences = [], []
    for second in again.to_pylist():
        clip_id = second["clip_id"]
        committed = read_predictions(store, canary.units[clip_id])
        first = committed.filter(pc.equal(committed["clip_id"], clip_id)).to_pylist()[0]
        if Status.OK not in (first["status"], second["status"]) or first["status"] != second["status"]:
            # A clip that fails now and then says nothing about labels on wrong clips.
            continue
        if first["content_hash"] != second["content_hash"]:
            warnings.append(f"The video of clip {clip_id!r} changed while the run was going on: {first['uri']}")
            continue
        if difference := _difference(first, second, tolerance=TOLERANCE[device]):
            differences.append(f"clip {clip_id!r}: {difference}")
    if differences:
        raise VerificationError(
            "Canary clips got other labels when they were scored again, so the table cannot be trusted:\n"
            + "\n".join(f"  - {d}" for d in differences)
            + "\nNothing was marked finished. Compare library versions and devices of the workers in run.json."
        )
    return warnings


def _difference(first: dict[str, object], second: dict[str, object], *, tolerance: float) -> str | None:
    scores = [first["score"], second["score"], first["margin"]]
    one, two, margin = (float(str(s)) for s in scores)
    if abs(one - two) > tolerance:
        return f"{first['label']!r} {one:.4f} in the table, {second['label']!r} {two:.4f} scored again"
    if first["label"] != second["label"] and margin > 2 * tolerance:
        return f"{first['label']!r} in the table, {second['label']!r} scored again (both about {one:.4f})"
    return None
