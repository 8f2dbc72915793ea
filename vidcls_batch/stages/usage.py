"""How much of their time classifiers score: told with their rows, as metadata of the table, never as a column."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

_KEY = b"vidcls_usage"


@dataclass(frozen=True, slots=True)
class WorkerUsage:
    """Of one classifier since its first block came."""

    worker: str
    scoring_s: float  # copies to the device and members; the rest is making rows and waiting for blocks
    alive_s: float

    def attach(self, rows: pa.Table) -> pa.Table:
        """The rows with this as their metadata."""
        told = json.dumps([self.worker, self.scoring_s, self.alive_s]).encode()
        return rows.replace_schema_metadata({**(rows.schema.metadata or {}), _KEY: told})


@dataclass(slots=True)
class UsageTally:
    """What the classifiers of a run told; the last word of each counts, for its sums only grow."""

    workers: dict[str, WorkerUsage] = field(default_factory=dict)

    def take(self, rows: pa.Table) -> pa.Table:
        """Note what the rows' worker told; gives the rows without it."""
        metadata: Mapping[bytes, bytes] = rows.schema.metadata or {}
        if _KEY not in metadata:
            return rows
        told = WorkerUsage(*json.loads(metadata[_KEY]))
        known = self.workers.get(told.worker)
        if known is None or told.alive_s > known.alive_s:
            self.workers[told.worker] = told
        return rows.replace_schema_metadata({key: value for key, value in metadata.items() if key != _KEY} or None)

    @property
    def busy_share(self) -> float | None:
        """Scoring time of all classifiers as a share of their time, None before any told."""
        alive = sum(worker.alive_s for worker in self.workers.values())
        return sum(worker.scoring_s for worker in self.workers.values()) / alive if alive > 0 else None
