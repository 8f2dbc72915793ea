"""Label the failed clips of a finished run again; their units are rewritten whole, every other row stays as it is."""

import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from vidcls_batch.canary import Canary
from vidcls_batch.config import Config, parse_config, ray_address, with_overrides
from vidcls_batch.dataset.claim import require_same_run
from vidcls_batch.dataset.commit import read_predictions, replace_rows
from vidcls_batch.dataset.events import EventLog
from vidcls_batch.dataset.plan import Plan, require_plan
from vidcls_batch.dataset.run_record import read_run_record
from vidcls_batch.dataset.unit_files import read_footer
from vidcls_batch.errors import FAILURES, ConfigError, IncompleteRunError
from vidcls_batch.grouping import run_resources
from vidcls_batch.labeling_run import RunOutcome, proven_outcome
from vidcls_batch.metrics import DriverMetrics
from vidcls_batch.passes import label_in_passes
from vidcls_batch.pipeline import Stages, ray_cluster
from vidcls_batch.progress import RunProgress
from vidcls_batch.run_spec import RunSpec, resolve_run
from vidcls_batch.run_watch import RunWatch
from vidcls_batch.storage import StorageOptions, Store, open_store


class UnitReplacer:
    """Takes second results of clips that failed; rewrites a unit once all of its failed clips have one."""

    def __init__(self, failed: Mapping[int, Mapping[str, int]], *, store: Store, plan: Plan) -> None:
        self._open = {unit: dict(attempts) for unit, attempts in failed.items()}  # unit -> clip id -> attempts so far
        self._rows: dict[int, list[pa.Table]] = defaultdict(list)
        self._store = store
        self._plan = plan
        self.statuses: Counter[str] = Counter()

    def add(self, rows: pa.Table) -> None:
        """Take rows of `schema.result_schema`; a second row of the same clip is dropped."""
        for unit in pc.unique(rows["unit"]).to_pylist():
            wanted = self._open.get(unit, {})
            for row in rows.filter(pc.equal(rows["unit"], unit)).to_pylist():
                if (before := wanted.pop(row["clip_id"], None)) is not None:
                    row["attempts"] += before
                    self._rows[unit].append(pa.Table.from_pylist([row], schema=rows.schema))
                    self.statuses[row["status"]] += 1
            if unit in self._open and not wanted:
                del self._open[unit]
                replace_rows(self._store, self._plan, unit, pa.concat_tables(self._rows.pop(unit)))

    def missing(self, units: Sequence[int]) -> dict[int, list[str]]:
        """Clip ids of `units` that have no second result yet."""
        return {unit: list(self._open[unit]) for unit in units if self._open.get(unit)}


def retry_failed(
    run_folder: str,
    *,
    statuses: Sequence[str],
    options: StorageOptions,
    overrides: Sequence[str],
    progress: RunProgress,
) -> RunOutcome:
    """Label again each clip whose row has one of `statuses`. Raises ConfigError (on a relabeled folder, too),
    RunMismatchError for an override that would change what the other rows rest on, and all that a run raises.
    """
    started = time.monotonic()
    wanted = _checked_statuses(statuses)
    store = open_store(run_folder, options=options)
    plan = require_plan(store)
    _refuse_relabeled(store)
    spec = resolve_run(_recorded_config(store, overrides=overrides))
    require_same_run(store, spec.identity())
    failed = _failed_clips(store, plan, statuses=wanted)
    total = sum(map(len, failed.values()))
    progress.say(f"{total:,} clips in {len(failed):,} units have status {', '.join(wanted)}")
    retried = _label_again(spec, failed=failed, store=store, plan=plan, progress=progress) if failed else Counter()
    if retried:
        progress.say("Now: " + ", ".join(f"{name} {count:,}" for name, count in sorted(retried.items())))
    return proven_outcome(store, plan, labeled=total, started=started)


def _label_again(
    spec: RunSpec, *, failed: Mapping[int, Mapping[str, int]], store: Store, plan: Plan, progress: RunProgress
) -> Counter[str]:
    config = spec.config
    replacer = UnitReplacer(failed, store=store, plan=plan)
    units = sorted(failed)
    with ray_cluster(ray_address(config.run), resources=config.resources) as capacity:
        resources = run_resources(spec, capacity=capacity, progress=progress)
        total = sum(map(len, failed.values()))
        watch = RunWatch(EventLog(store, driver=secrets.token_hex(8), say=progress.say), DriverMetrics())
        watch.note("retry_started", clips=total, units=len(failed))
        watch.start(to_do=total)
        progress.start(total=total, done=0)
        try:
            label_in_passes(
                replacer.missing(units),
                sink=replacer,
                canary=Canary({}),
                stages=Stages(
                    run_uri=store.uri,
                    storage=spec.storage,
                    decode=spec.decode_settings(),
                    classify=spec.classify_settings(resources),
                ),
                resources=resources,
                max_poison_clips=config.run.max_poison_clips,
                progress=progress,
                watch=watch,
            )
        finally:
            progress.finish()
            watch.ended()
    return replacer.statuses


def _refuse_relabeled(store: Store) -> None:
    """Raise ConfigError for a folder that `vidcls relabel` made: its failures are those of the run it came from."""
    origin = read_run_record(store).provenance.get("relabeled_from")
    if origin is not None:
        raise ConfigError(
            f"{store.uri} holds new labels over the evidence of {origin['run']}, and its failed clips failed there: "
            f"`vidcls retry {origin['run']}` first, then `vidcls relabel` into a new folder"
        )


def _recorded_config(store: Store, *, overrides: Sequence[str]) -> Config:
    recorded = dict(read_run_record(store).config)
    return parse_config(with_overrides(recorded, overrides), source=f"{store.uri}/run.json")


def _failed_clips(store: Store, plan: Plan, *, statuses: Sequence[str]) -> dict[int, dict[str, int]]:
    """Unit -> clip id -> attempts so far, of the committed rows with one of `statuses`."""
    found: dict[int, dict[str, int]] = {}
    for unit in range(plan.num_units):
        try:
            if not set(statuses) & set(read_footer(store, unit).statuses):
                continue
            rows = read_predictions(store, unit, columns=["clip_id", "status", "attempts"])
        except FileNotFoundError as error:
            raise IncompleteRunError(
                f"{store.uri} is not finished (unit {unit} is missing); finish it with `vidcls run` first"
            ) from error
        rows = rows.filter(pc.is_in(rows["status"], value_set=pa.array(statuses)))
        if len(rows):
            found[unit] = dict(zip(rows["clip_id"].to_pylist(), rows["attempts"].to_pylist(), strict=True))
    return found


def _checked_statuses(statuses: Sequence[str]) -> list[str]:
    allowed = [s.value for s in FAILURES]
    unknown = [s for s in statuses if s not in allowed]
    if unknown or not statuses:
        given = unknown[0] if unknown else ""
        raise ConfigError(f"--status {given!r} is no failure that can be retried; choose from {', '.join(allowed)}")
    return list(statuses)
