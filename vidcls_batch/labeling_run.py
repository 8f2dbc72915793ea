"""A labeling run: plan, label until nothing is missing, check, verify. The one place that decides what happens next."""

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

import vidcls_batch
from vidcls_batch.advisor import Advisor, Slots
from vidcls_batch.canary import check_canary, choose_canary
from vidcls_batch.cluster_watch import ClusterWatch, needs_of, watching
from vidcls_batch.config import Config, ray_address
from vidcls_batch.dataset.commit import UnitCollector, pending_units
from vidcls_batch.dataset.events import EventLog, gather_events
from vidcls_batch.dataset.plan import Plan
from vidcls_batch.dataset.run_record import write_heads, write_run_record
from vidcls_batch.dataset.verify import is_marked_success, mark_success, verify_run
from vidcls_batch.errors import Status
from vidcls_batch.failure_brake import FailureBrake
from vidcls_batch.grouping import run_resources
from vidcls_batch.labeling.cascade import CascadeTally
from vidcls_batch.metrics import DriverMetrics
from vidcls_batch.passes import label_in_passes
from vidcls_batch.pipeline import Stages, object_store_share, ray_cluster
from vidcls_batch.planning import freeze_plan
from vidcls_batch.progress import RunProgress, format_duration
from vidcls_batch.run_spec import RunSpec, resolve_run
from vidcls_batch.run_watch import RunWatch
from vidcls_batch.stages.usage import UsageTally
from vidcls_batch.storage import Store, open_store

# Where each Parquet file's footer carries what its labels rest on.
PROVENANCE_KEY = "vidcls_batch"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended; its table is complete and verified."""

    run_uri: str
    num_clips: int
    statuses: dict[str, int]
    labeled_now: int  # clips that this process labeled; 0 when the run was already finished
    seconds: float
    warnings: tuple[str, ...] = ()
    classifiers_busy: float | None = None  # share of their time that the classifiers scored; None: nothing was labeled

    def __str__(self) -> str:
        ok = self.statuses.get(Status.OK, 0)
        failed = [f"{name} {count:,}" for name, count in sorted(self.statuses.items()) if name != Status.OK]
        lines = [
            f"Done: {self.num_clips:,} clips, each with one row: ok {ok:,}, " + (", ".join(failed) or "none failed"),
            f"  labeled now   {self.labeled_now:,} in {format_duration(self.seconds)}",
            *(
                []
                if self.classifiers_busy is None
                else [f"  classifiers   {self.classifiers_busy:.0%} of their time scoring"]
            ),
            f"  predictions   {self.run_uri}/predictions",
            f"  provenance    {self.run_uri}/run.json",
        ]
        return "\n".join([*lines, *(f"  warning       {w}" for w in self.warnings)])


def run_labeling(config: Config, *, progress: RunProgress) -> RunOutcome:
    """Label every clip of the manifest that has no committed row yet, then prove that each has exactly one.

    The same call again resumes after any interruption; on a finished run it does nothing. Raises ConfigError,
    ManifestError, CheckpointError, RunMismatchError or StorageError before any work, IncompleteRunError when clips are
    left without a row, VerificationError when the table is not the manifest or the canary clips differ.
    """
    started = time.monotonic()
    spec = resolve_run(config)
    for note in (*spec.licence_notes(), *spec.labeling.coverage.lines()):
        progress.say(note)
    store = open_store(config.run.path, options=spec.storage)
    plan = freeze_plan(spec, store=store, progress=progress)
    pending = pending_units(store, plan)
    if not pending and is_marked_success(store):
        progress.say(f"Already finished, nothing to do: {plan.num_clips:,} clips in {store.uri}/predictions")
        return proven_outcome(store, plan, labeled=0, started=started)
    labeled = 0
    warnings: list[str] = []
    usage = UsageTally()
    if pending:
        labeled, warnings = _label(spec, store=store, plan=plan, pending=pending, progress=progress, usage=usage)
    progress.say("Verifying planned ids against committed ids ...")
    outcome = proven_outcome(store, plan, labeled=labeled, started=started, warnings=warnings)
    return replace(outcome, classifiers_busy=usage.busy_share)


def proven_outcome(
    store: Store, plan: Plan, *, labeled: int, started: float, warnings: Sequence[str] = ()
) -> RunOutcome:
    """Verify the table and mark the run finished; `started` is a `time.monotonic()`. Raises VerificationError."""
    verification = verify_run(store, plan)
    mark_success(store, verification)
    gather_events(store)
    return RunOutcome(
        run_uri=store.uri,
        num_clips=verification.num_clips,
        statuses=dict(verification.statuses),
        labeled_now=labeled,
        seconds=time.monotonic() - started,
        warnings=tuple(warnings),
    )


def _label(
    spec: RunSpec,
    *,
    store: Store,
    plan: Plan,
    pending: Sequence[int],
    progress: RunProgress,
    usage: UsageTally,
) -> tuple[int, list[str]]:
    run = spec.config.run
    record = spec.record()
    write_run_record(store, record)
    write_heads(store, {m.name: m.labels for m in spec.members})
    done = plan.num_clips - sum(plan.unit_size(unit) for unit in pending)
    canary = choose_canary(pending, store=store, plan=plan, num_clips=run.canary_clips)
    owner = secrets.token_hex(8)
    collector = UnitCollector(
        plan,
        store=store,
        schema=spec.schema(plan.extra_schema),
        owner=owner,
        metadata={PROVENANCE_KEY: json.dumps(asdict(record))},
        compression=spec.config.output.compression,
        pending=pending,
    )
    watch = RunWatch(EventLog(store, driver=owner, say=progress.say), DriverMetrics(), usage)
    watch.note(
        "driver_started",
        host=socket.gethostname(), pid=os.getpid(), ray_address=ray_address(run), version=vidcls_batch.__version__,
        clips=plan.num_clips, clips_done=done, units=plan.num_units, units_to_do=len(pending),
    )  # fmt: skip
    sink = _TallyingSink(collector, watch, progress, brake=FailureBrake(max_share=run.max_failed_share))
    progress.say(
        "Starting Ray ..." if ray_address(run) is None else f"Joining the Ray cluster at {ray_address(run)} ..."
    )
    with ray_cluster(ray_address(run), resources=spec.config.resources) as capacity:
        resources = run_resources(spec, capacity=capacity, progress=progress)
        stages = Stages(
            run_uri=store.uri,
            storage=spec.storage,
            decode=spec.decode_settings(),
            classify=spec.classify_settings(resources),
        )
        slots = Slots.of(resources, capacity=capacity, clips_ahead=stages.decode.fetch.clips_ahead)
        sink.advisor = Advisor(slots, store_share=object_store_share)
        progress.start(total=plan.num_clips, done=done)
        watch.start(to_do=plan.num_clips - done)
        cluster = ClusterWatch(needs_of(resources), watch=watch, say=progress.say)
        try:
            with watching(cluster):
                again = label_in_passes(
                    dict.fromkeys(pending),
                    sink=sink,
                    canary=canary,
                    stages=stages,
                    resources=resources,
                    max_poison_clips=run.max_poison_clips,
                    progress=progress,
                    watch=watch,
                )
        finally:
            progress.finish()
            watch.ended()
    if spec.config.ensemble.cascade is not None:
        progress.say(str(sink.tally))
    warnings = check_canary(canary, again, store=store, device=resources.device)
    return plan.num_clips - done, warnings


class _TallyingSink:
    """Passes rows on to the collector, counts what a cascade saved and says what the run waits for."""

    def __init__(
        self, collector: UnitCollector, watch: RunWatch, progress: RunProgress, *, brake: FailureBrake
    ) -> None:
        self._collector = collector
        self._brake = brake
        self._watch = watch
        self._progress = progress
        self.tally = CascadeTally()
        self.advisor: Advisor | None = None

    def add(self, rows: pa.Table) -> object:
        """Take rows of `result_schema`."""
        started = time.monotonic()
        self._brake.add(rows)
        self.tally = self.tally.add(rows["cascade"].to_pylist(), rows["infer_ms"].to_pylist())
        committed = self._collector.add(rows)
        for unit in committed:
            self._watch.committed(unit)
        if self.advisor is not None:
            self.advisor.add(rows, driver_s=time.monotonic() - started)
            if (advice := self.advisor.advice()) is not None:
                self._watch.note("advice", limit=advice.limit.value, text=advice.text)
                self._progress.say(str(advice))
        return committed

    def missing(self, units: Sequence[int]) -> Mapping[int, Sequence[str]]:
        """Clip ids of `units` that have no row yet."""
        return self._collector.missing(units)
