"""How much of their time classifiers score: told on their blocks, never as a column of the table."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class WorkerUsage:
    """Of one classifier since its first block came."""

    scoring_s: float  # copies to the device and members; the rest is making rows and waiting for blocks
    alive_s: float


@dataclass(slots=True)
class UsageTally:
    """What the classifiers of a run told; the last word of each counts, for its sums only grow."""

    workers: dict[str, WorkerUsage] = field(default_factory=dict)

    def add(self, worker: str, told: WorkerUsage) -> None:
        """One classifier's word; an older one that comes late changes nothing."""
        known = self.workers.get(worker)
        if known is None or told.alive_s > known.alive_s:
            self.workers[worker] = told

    @property
    def busy_share(self) -> float | None:
        """Scoring time of all classifiers as a share of their time, None before any told."""
        alive = sum(worker.alive_s for worker in self.workers.values())
        return sum(worker.scoring_s for worker in self.workers.values()) / alive if alive > 0 else None
