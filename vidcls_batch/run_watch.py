"""What a driver notices of a run: told to the run's events and to Prometheus."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidcls_batch.dataset.commit import CommittedUnit
from vidcls_batch.dataset.events import EventLog
from vidcls_batch.metrics import DriverMetrics
from vidcls_batch.pipeline import block_facts
from vidcls_batch.stages.usage import UsageTally, WorkerUsage

MOST_IDS = 50  # of one event
QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class RunWatch:
    """Takes note of what happens; without events and metrics of nothing, as in tests."""

    events: EventLog | None = None
    metrics: DriverMetrics | None = None
    usage: UsageTally = field(default_factory=UsageTally)

    def note(self, kind: str, **facts: Any) -> None:
        """An event."""
        if self.events is not None:
            self.events.add(kind, **facts)

    def block(self, rows: pa.Table) -> None:
        """A block that came back: which of its workers and decoders died on the way."""
        units = sorted(set(rows["unit"].to_pylist()))
        for fact in block_facts(rows):
            if fact.get("usage") is not None:
                self.usage.add(f"{fact['node']}/{fact['pid']}", WorkerUsage(**fact["usage"]))
            where = {"stage": fact["stage"], "node": fact["node"], "pid": fact["pid"]}
            if fact["attempt"]:
                ids = rows["clip_id"].to_pylist()[:MOST_IDS]
                self.note("block_retried", **where, attempt=fact["attempt"], units=units, clip_ids=ids)
            for death in fact["deaths"]:
                kind = "decoder_killed" if death["status"] == "timeout" else "decoder_died"
                self.note(kind, **where, **death)
        if QUARANTINED not in rows["error_code"].to_pylist():
            return
        quarantined = rows.filter(pc.equal(rows["error_code"], QUARANTINED))
        for row in quarantined.select(["unit", "clip_id", "status", "error_message"]).to_pylist():
            self.note(QUARANTINED, **row)

    def rows(self, statuses: Mapping[str, int]) -> None:
        """Rows that went to the table, by status."""
        if self.metrics is not None:
            self.metrics.clips(statuses)

    def committed(self, unit: CommittedUnit) -> None:
        """A unit that is part of the table now."""
        facts = {"unit": unit.unit, "rows": unit.num_rows, "bytes": unit.num_bytes, "statuses": dict(unit.statuses)}
        self.note("unit_committed" if unit.is_ours else "unit_was_committed_by_another_driver", **facts)
        if self.metrics is not None and unit.is_ours:
            self.metrics.unit_committed()

    def block_lost(self, reason: str) -> None:
        """A block that Ray gave up."""
        self.note("block_lost", reason=reason)
        if self.metrics is not None:
            self.metrics.block_lost()

    def tried_again(self, clips: Mapping[int, object], *, count: int, why: str, reason: str, attempt: int) -> None:
        """Clips on their way once more; `why` is fetch or worker_died."""
        ids = [clip_id for found in clips.values() if isinstance(found, list | tuple) for clip_id in found][:MOST_IDS]
        self.note(
            "clips_tried_again",
            why=why, count=count, attempt=attempt, reason=reason, units=sorted(clips)[:MOST_IDS], clip_ids=ids,
        )  # fmt: skip
        if self.metrics is not None:
            self.metrics.tried_again(count, reason=why)

    def held(self, count: int) -> None:
        """Clips put by because their store failed."""
        if self.metrics is not None:
            self.metrics.held(count)

    def node_joined(self, node: str, *, host: str) -> None:
        """A node came."""
        self.note("node_joined", node=node, host=host)

    def node_lost(self, node: str, *, host: str, reason: str) -> None:
        """A node is gone, with the blocks on it."""
        self.note("node_lost", node=node, host=host, reason=reason)
        if self.metrics is not None:
            self.metrics.node_lost()

    def waiting(self, *, for_what: str, seconds: int) -> None:
        """No node can run a stage."""
        self.note("waiting_for_capacity", for_what=for_what, seconds=seconds)
        if self.metrics is not None:
            self.metrics.waiting(is_waiting=True)

    def capacity_there(self, *, seconds: int) -> None:
        """Each stage has a node again."""
        self.note("capacity_there", seconds=seconds)
        if self.metrics is not None:
            self.metrics.waiting(is_waiting=False)

    def still_there(self) -> None:
        """Told every few seconds while the driver lives."""
        if self.metrics is not None:
            self.metrics.refresh()

    def start(self, *, to_do: int) -> None:
        """Clips without a row, now that work begins."""
        if self.metrics is not None:
            self.metrics.start(to_do=to_do)

    def ended(self) -> None:
        """The clips are through, or an exception under way ends the driver; writes all events."""
        error = sys.exc_info()[1]
        if error is None:
            self.note("clips_through", classifiers_busy=self.usage.busy_share)
        else:
            self.note("driver_ended", error=type(error).__name__, reason=str(error))
        if self.events is not None:
            self.events.close()
