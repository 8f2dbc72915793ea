"""Figures for Prometheus, by ray.util.metrics: Ray serves them on each node's metrics port with the prefix `ray_`.

Totals are counters and must be summed over their WorkerId: gauges of a worker that is gone vanish.
"""

from collections.abc import Mapping
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
from ray.util.metrics import Counter, Gauge, Histogram

_SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


class StageMetrics:
    """What a worker of the stage `decode` or `classify` counts; one for each process."""

    def __init__(self, stage: str) -> None:
        self._tags = {"stage": stage}
        self._time_column = "decode_ms" if stage == "decode" else "infer_ms"
        self._clip_seconds = Histogram(
            "vidcls_clip_seconds", "Time of a clip in a stage.", boundaries=_SECONDS, tag_keys=("stage",)
        )
        self._busy = Counter("vidcls_busy_seconds", "Time workers spent on blocks.", tag_keys=("stage",))
        self._blocks = Counter("vidcls_blocks", "Blocks done.", tag_keys=("stage",))
        self._retries = Counter("vidcls_block_retries", "Blocks done after their worker died.", tag_keys=("stage",))
        self._bytes = Counter("vidcls_fetched_bytes", "Bytes of videos read.")
        self._requests = Counter("vidcls_fetch_requests", "Requests for videos.")
        self._fetch_seconds = Counter("vidcls_fetch_seconds", "Time of fetches, waited for or not.")
        self._kills = Counter("vidcls_decoder_deaths", "Decoder children that died or were killed.", ("status",))

    def block_done(self, rows: pa.Table, *, seconds: float, attempt: int, deaths: Mapping[str, int]) -> None:
        """Count a block that the stage has worked on for `seconds`, in its `attempt`, 0 being the first."""
        self._blocks.inc(1, self._tags)
        if seconds > 0:
            self._busy.inc(seconds, self._tags)
        if attempt:
            self._retries.inc(1, self._tags)
        for milliseconds in rows[self._time_column].drop_null():
            self._clip_seconds.observe(milliseconds.as_py() / 1000, self._tags)
        for status, count in deaths.items():
            self._kills.inc(count, {"status": status})
        if self._tags["stage"] == "decode":
            totals = (("fetched_bytes", self._bytes, 1.0), ("fetch_requests", self._requests, 1.0),
                      ("fetch_ms", self._fetch_seconds, 1e-3))  # fmt: skip
            for column, counter, factor in totals:
                if (total := pc.sum(rows[column]).as_py()) and total > 0:
                    counter.inc(total * factor)


class DriverMetrics:
    """What the driver counts."""

    def __init__(self) -> None:
        self._clips = Counter("vidcls_clips", "Clips with a row, by status.", tag_keys=("status",))
        self._units = Counter("vidcls_units_committed", "Units committed by this driver.")
        self._lost = Counter("vidcls_lost_blocks", "Blocks given up; their clips come back in a later pass.")
        self._nodes_lost = Counter("vidcls_nodes_lost", "Nodes that left the cluster.")
        self._tried_again = Counter("vidcls_clips_tried_again", "Clips sent through again.", tag_keys=("reason",))
        self._held = Gauge("vidcls_held_clips", "Clips put by because their store failed.")
        self._open = Gauge("vidcls_clips_to_do", "Clips of the plan without a row.")
        self._waiting = Gauge("vidcls_waiting_for_capacity", "1 while nothing runs for want of machines.")
        self._to_do = self._num_held = 0
        self._is_waiting = False

    def start(self, *, to_do: int) -> None:
        """Clips without a row at the start."""
        self._to_do = to_do
        self.refresh()

    def refresh(self) -> None:
        """Tell the gauges' values again: Ray forgets a gauge that is not set within two of its report intervals."""
        self._open.set(max(0, self._to_do))
        self._held.set(self._num_held)
        self._waiting.set(int(self._is_waiting))

    def clips(self, statuses: Mapping[str, int]) -> None:
        """Clips that got their row."""
        for status, count in statuses.items():
            if count:
                self._clips.inc(count, {"status": status})
        self._to_do -= sum(statuses.values())
        self.refresh()

    def unit_committed(self) -> None:
        """A unit is part of the table, by this driver."""
        self._units.inc(1)

    def block_lost(self) -> None:
        """A block was given up."""
        self._lost.inc(1)

    def node_lost(self) -> None:
        """A node left."""
        self._nodes_lost.inc(1)

    def tried_again(self, count: int, *, reason: str) -> None:
        """Clips of `reason` (fetch, worker_died) are on their way again."""
        self._tried_again.inc(count, {"reason": reason})

    def held(self, count: int) -> None:
        """Clips put by now."""
        self._num_held = count
        self.refresh()

    def waiting(self, *, is_waiting: bool) -> None:
        """Whether the run waits for machines."""
        self._is_waiting = is_waiting
        self.refresh()


@lru_cache(maxsize=4)
def stage_metrics(stage: str) -> StageMetrics:
    """This process's counters: Ray adds up what one process registers once."""
    return StageMetrics(stage)


def task_attempt() -> int:
    """How often Ray has tried the current task before; 0 in the first try and outside of tasks."""
    import ray

    try:
        # Not in the public API of 2.60; without it retries are simply not told of.
        return int(ray._private.worker.global_worker.core_worker.get_current_task_attempt_number())
    except AttributeError:
        return 0
