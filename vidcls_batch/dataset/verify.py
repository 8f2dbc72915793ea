"""Proof that the table holds exactly one row for each planned clip, and the mark that says so."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from vidcls_batch.dataset.plan import PREDICTIONS_FOLDER, Plan, prediction_path, read_unit
from vidcls_batch.dataset.unit_files import count_statuses, read_predictions
from vidcls_batch.errors import StorageError, VerificationError
from vidcls_batch.storage import Store

SUCCESS = "_SUCCESS"  # in the run folder, beside `predictions/`: readers of that folder never see it
_AT_ONCE = 8
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Verification:
    """What a full read of the plan and the table found."""

    run_uri: str
    num_clips: int  # planned
    num_rows: int  # committed, in readable files
    statuses: Mapping[str, int]  # rows by status
    missing_units: tuple[int, ...] = ()
    damaged_units: tuple[int, ...] = ()
    problems: tuple[str, ...] = field(default=())  # one line each, for people

    @property
    def ok(self) -> bool:
        """Whether planned and committed clips are the same, each exactly once, in one schema."""
        return not self.problems

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count:,}" for name, count in self.statuses.items())
        if self.ok:
            return f"Verified: {self.num_clips:,} planned clips, {self.num_rows:,} rows, one each ({counts})"
        lines = [f"NOT verified: {self.num_clips:,} planned clips, {self.num_rows:,} rows ({counts or 'none'})"]
        return "\n".join([*lines, *(f"  - {p}" for p in self.problems)])


@dataclass(frozen=True, slots=True)
class _UnitCheck:
    num_rows: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    schema: pa.Schema | None = None
    is_missing: bool = False
    is_damaged: bool = False
    problem: str = ""


def verify_run(store: Store, plan: Plan) -> Verification:
    """Read every planned unit and every committed row and compare; raises only StorageError of a store that is gone.

    Memory is bounded by a few units. Pages carry checksums, so a flipped bit in any column is found.
    """
    names = {o.path for o in store.list(PREDICTIONS_FOLDER)}
    problems: list[str] = []
    expected = {prediction_path(unit) for unit in range(plan.num_units)}
    if foreign := sorted(names - expected):
        problems.append(f"{len(foreign)} files in {PREDICTIONS_FOLDER}/ are not of this plan: {_some(foreign)}")
    statuses: Counter[str] = Counter()
    missing, damaged, differing = [], [], []
    num_rows, schema = 0, None
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="verify") as pool:
        checks = pool.map(lambda unit: _check_unit(store, plan, unit, names), range(plan.num_units))
        for unit, check in enumerate(checks):
            statuses.update(check.statuses)
            num_rows += check.num_rows
            if check.is_missing:
                missing.append(unit)
            if check.is_damaged:
                damaged.append(unit)
            if check.problem:
                problems.append(check.problem)
            if check.schema is not None:
                schema = schema or check.schema
                if not check.schema.equals(schema):
                    differing.append(unit)
    if missing:
        problems.insert(
            0, f"{len(missing)} of {plan.num_units} units are not committed: {_some(missing)}. Resume: vidcls run"
        )
    if differing:
        problems.append(f"{len(differing)} units have another schema than the first: {_some(differing)}")
    return Verification(
        run_uri=store.uri,
        num_clips=plan.num_clips,
        num_rows=num_rows,
        statuses=dict(statuses.most_common()),
        missing_units=tuple(missing),
        damaged_units=tuple(damaged),
        problems=tuple(problems),
    )


def mark_success(store: Store, verification: Verification) -> None:
    """Write `_SUCCESS` with the counts. Raises VerificationError for a run that is not verified."""
    if not verification.ok:
        raise VerificationError(str(verification))
    record = {"num_clips": verification.num_clips, "statuses": dict(verification.statuses)}
    store.put(SUCCESS, (json.dumps(record) + "\n").encode())


def unmark_success(store: Store) -> None:
    """Take the mark back before the table changes."""
    store.delete(SUCCESS)


def is_marked_success(store: Store) -> bool:
    """Whether the run was verified and nothing was rewritten since."""
    return store.exists(SUCCESS)


def success_counts(store: Store) -> dict[str, int] | None:
    """Rows by status of a run that is marked, None for one that is not."""
    try:
        counts: dict[str, int] = json.loads(store.read_bytes(SUCCESS))["statuses"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return counts


def _check_unit(store: Store, plan: Plan, unit: int, names: set[str]) -> _UnitCheck:
    path = prediction_path(unit)
    try:
        planned = read_unit(store, unit)
    except (FileNotFoundError, StorageError) as error:
        return _UnitCheck(is_damaged=True, problem=f"the plan of unit {unit} cannot be read: {error}")
    if planned.num_rows != plan.unit_size(unit):
        problem = f"the plan of unit {unit} holds {planned.num_rows} clips, not {plan.unit_size(unit)}"
        return _UnitCheck(is_damaged=True, problem=problem)
    if path not in names:
        return _UnitCheck(is_missing=True)
    try:
        rows = read_predictions(store, unit)
        statuses = count_statuses(rows)
        problem = _compare(planned, rows, path)
    except FileNotFoundError:
        return _UnitCheck(is_missing=True)
    except (StorageError, KeyError) as error:
        return _UnitCheck(is_damaged=True, problem=f"{path} cannot be read: {error}")
    return _UnitCheck(rows.num_rows, statuses, rows.schema, problem=problem)


def _compare(planned: pa.Table, rows: pa.Table, path: str) -> str:
    """What is wrong between a unit's plan and its rows, "" for nothing."""
    if rows["clip_id"].equals(planned["clip_id"]) and rows["uri"].equals(planned["uri"]):
        return ""
    wanted, found = planned["clip_id"], rows["clip_id"]
    absent = wanted.filter(pc.invert(pc.is_in(wanted, value_set=found.combine_chunks()))).to_pylist()
    unknown = found.filter(pc.invert(pc.is_in(found, value_set=wanted.combine_chunks()))).to_pylist()
    faults = []
    if absent:
        faults.append(f"{len(absent)} planned clips have no row ({_some(absent)})")
    if unknown:
        faults.append(f"{len(unknown)} rows are of clips that are not planned here ({_some(unknown)})")
    if repeated := rows.num_rows - pc.count_distinct(found, mode="all").as_py():
        faults.append(f"{repeated} rows are of clips that have one already")
    if not faults:
        faults.append("the rows' order or their uri column is not the plan's")
    return f"{path}: " + "; ".join(faults)


def _some(values: Iterable[object]) -> str:
    shown = [str(v) for v in values]
    return ", ".join(shown[:_SHOWN]) + (", …" if len(shown) > _SHOWN else "")
