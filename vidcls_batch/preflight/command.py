"""`vidcls plan`: the plan, and what a pre-flight says of it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vidcls_batch.config import Config
from vidcls_batch.dataset.claim import require_same_run
from vidcls_batch.errors import PreflightError
from vidcls_batch.planning import PlannedRun, PlanSummary, plan_run
from vidcls_batch.preflight import report
from vidcls_batch.preflight.preflight import Preflight, PreflightSettings, run_preflight
from vidcls_batch.preflight.prices import load_prices
from vidcls_batch.progress import RunProgress
from vidcls_batch.storage import open_store


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What `vidcls plan` tells."""

    summary: PlanSummary
    preflight: Preflight | None

    def as_json(self) -> dict[str, Any]:
        """Plain values, the plan's at the top."""
        return asdict(self.summary) | {"preflight": self.preflight and report.as_json(self.preflight)}

    def require_fit(self) -> None:
        """Raise PreflightError when something would hurt the run."""
        errors = self.preflight.errors if self.preflight else []
        if errors:
            raise PreflightError("The run is not fit to start:\n" + "\n".join(f"  - {f.message}" for f in errors))

    def __str__(self) -> str:
        return str(self.summary) + (report.as_text(self.preflight) if self.preflight else "")


def plan_and_probe(
    config: Config,
    *,
    settings: PreflightSettings,
    prices: Path | None,
    leave_no_trace: bool,
    progress: RunProgress,
) -> PlanReport:
    """Plan the run and probe a sample. `leave_no_trace` plans in a temporary folder: the run's is only compared.

    Raises what `plan_run` raises, and ConfigError for a price table that is none.
    """
    table = None if prices is None else load_prices(prices)
    with _planned(config, leave_no_trace=leave_no_trace, progress=progress) as planned:
        found = None
        if settings.num_clips:
            found = run_preflight(planned, settings=settings, prices=table, progress=progress)
        return PlanReport(summary=replace(planned.summary, run_uri=config.run.path), preflight=found)


@contextmanager
def _planned(config: Config, *, leave_no_trace: bool, progress: RunProgress) -> Iterator[PlannedRun]:
    if not leave_no_trace:
        yield plan_run(config, progress=progress)
        return
    with tempfile.TemporaryDirectory(prefix="vidcls-plan-") as folder:
        elsewhere = config.model_copy(update={"run": config.run.model_copy(update={"path": folder})})
        planned = plan_run(elsewhere, progress=progress)
        require_same_run(open_store(config.run.path, options=planned.spec.storage), planned.spec.identity())
        yield planned
