"""How far a run is, from one listing and the footers of its files."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vidcls_batch.dataset.commit import committed_units
from vidcls_batch.dataset.plan import require_plan
from vidcls_batch.dataset.unit_files import read_footer
from vidcls_batch.dataset.verify import success_counts
from vidcls_batch.storage import Store

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Counts of a run, finished or not."""

    run_uri: str
    num_clips: int
    num_units: int
    committed_units: int
    committed_clips: int
    statuses: Mapping[str, int]  # committed rows by status
    finished: bool  # verified and marked `_SUCCESS`

    def __str__(self) -> str:
        share = self.committed_clips / self.num_clips
        state = "finished and verified" if self.finished else "not finished; resume with the same vidcls run command"
        counts = ", ".join(f"{name} {count:,}" for name, count in self.statuses.items()) or "none"
        return (
            f"{self.run_uri}: {state}\n"
            f"  clips   {self.committed_clips:,} of {self.num_clips:,} ({share:.1%})\n"
            f"  units   {self.committed_units:,} of {self.num_units:,}\n"
            f"  rows    {counts}"
        )


def run_status(store: Store) -> RunStatus:
    """Count what is committed. Raises StorageError for a folder that is no run or a file that is damaged."""
    plan = require_plan(store)
    counts = success_counts(store)
    finished = counts is not None
    units = set(range(plan.num_units)) if finished else committed_units(store, plan)
    if counts is None:
        total: Counter[str] = Counter()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="footers") as pool:
            for footer in pool.map(lambda unit: read_footer(store, unit), sorted(units)):
                total.update(footer.statuses)
        counts = dict(total.most_common())
    return RunStatus(
        run_uri=store.uri,
        num_clips=plan.num_clips,
        num_units=plan.num_units,
        committed_units=len(units),
        committed_clips=sum(plan.unit_size(unit) for unit in units),
        statuses=counts,
        finished=finished,
    )
