"""Commit: a unit whose clips all have their row becomes one Parquet object, by the first driver to put it there."""

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidcls_batch.dataset.plan import PREDICTIONS_FOLDER, Plan, prediction_path, read_unit
from vidcls_batch.dataset.unit_files import (
    OWNER_KEY,
    count_statuses,
    decode_unit,
    encode_unit,
    read_footer,
    read_predictions,
)
from vidcls_batch.dataset.verify import unmark_success
from vidcls_batch.errors import StorageError
from vidcls_batch.storage import Store

__all__ = [
    "CommittedUnit",
    "UnitCollector",
    "commit_rows",
    "committed_units",
    "pending_units",
    "read_predictions",
    "replace_rows",
]

_UNIT_FILE = re.compile(rf"^{PREDICTIONS_FOLDER}/unit-(\d{{6,}})\.parquet$")
ROUTE = ("unit", "clip_id")  # what a row needs to find its place; all else of `rows` are results


@dataclass(frozen=True, slots=True)
class CommittedUnit:
    """A unit that has just become part of the table."""

    unit: int
    num_rows: int
    num_bytes: int
    statuses: Mapping[str, int]
    is_ours: bool  # False: another driver's rows were there first and stay


@dataclass(slots=True)
class _OpenUnit:
    clips: pa.Table  # the plan's
    places: Mapping[str, int]  # clip id -> its row in `clips`
    received: NDArray[np.bool_]
    positions: list[NDArray[np.int64]] = field(default_factory=list)  # of the rows below, in the plan's order
    rows: list[pa.Table] = field(default_factory=list)


class UnitCollector:
    """Takes labeled rows in any order and commits each unit as soon as all of its planned clips have one.

    Rows of open units stay in memory until then, over any number of passes. `schema` is the run's; its columns that
    the plan has come from the plan, the others from the rows. `owner` marks this driver's files.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        store: Store,
        schema: pa.Schema,
        owner: str,
        metadata: Mapping[str, str],
        compression: str = "zstd",
        pending: Iterable[int] | None = None,
    ) -> None:
        """`pending` saves the listing of what is not committed yet. Raises ValueError for a schema without the plan's
        columns.
        """
        for planned in plan.schema:
            if planned.name not in schema.names or schema.field(planned.name).type != planned.type:
                raise ValueError(f"the run's schema lacks the plan's column {planned.name}: {planned.type}")
        self._plan = plan
        self._store = store
        self._schema = schema
        self._owner = owner
        self._metadata = dict(metadata)
        self._compression = compression
        self._results = [f.name for f in schema if f.name not in plan.schema.names]
        self._pending = set(pending_units(store, plan) if pending is None else pending)
        self._open: dict[int, _OpenUnit] = {}
        self.num_dropped = 0  # rows that were here before: of a committed unit, or a clip's second

    def add(self, rows: pa.Table) -> list[CommittedUnit]:
        """Take rows (`unit` int32, `clip_id`, the results); returns the units that are committed by now, durably.

        Raises ValueError for rows the plan does not know or whose columns are not the run's, StorageError when the
        commit fails: the same rows can be added again then.
        """
        self._check_columns(rows)
        committed = []
        numbers = rows["unit"].to_numpy()
        for unit in np.unique(numbers).tolist():
            is_here = numbers == unit
            part = rows if is_here.all() else rows.filter(pa.array(is_here))
            if not 0 <= unit < self._plan.num_units:
                raise ValueError(f"rows of unit {unit}; the plan has {self._plan.num_units}")
            if unit not in self._pending:
                self.num_dropped += part.num_rows
                continue
            opened = self._take(unit, part)
            if opened.received.all():
                committed.append(self._commit(unit, opened))
        return committed

    def missing(self, units: Iterable[int] | None = None) -> dict[int, list[str]]:
        """Planned clips without a row, by unit, of `units` or of all that are not committed; complete ones left out."""
        wanted = self._pending if units is None else self._pending.intersection(units)
        found = {}
        for unit in sorted(wanted):
            opened = self._open.get(unit)
            clips = self._planned(unit) if opened is None else opened.clips
            ids = clips["clip_id"]
            if opened is not None:
                ids = ids.filter(pa.array(~opened.received))
            if len(ids):
                found[unit] = ids.to_pylist()
        return found

    @property
    def open_units(self) -> list[int]:
        """Units with some rows in memory."""
        return sorted(self._open)

    def _planned(self, unit: int) -> pa.Table:
        try:
            return read_unit(self._store, unit)
        except FileNotFoundError as error:
            raise StorageError(
                f"The plan of unit {unit} is no longer in {self._store.uri}: has the folder been moved or unmounted? "
                "Bring it back and run the same command again."
            ) from error

    def _check_columns(self, rows: pa.Table) -> None:
        lacking = sorted({*ROUTE, *self._results} - set(rows.column_names))
        unknown = sorted(set(rows.column_names) - {*ROUTE, *self._results})
        if lacking or unknown:
            raise ValueError(f"rows do not have the run's columns: missing {lacking}, unknown {unknown}")

    def _take(self, unit: int, rows: pa.Table) -> _OpenUnit:
        opened = self._open.get(unit)
        if opened is None:
            clips = self._planned(unit)
            places = {clip_id: place for place, clip_id in enumerate(clips["clip_id"].to_pylist())}
            opened = self._open[unit] = _OpenUnit(clips, places, np.zeros(clips.num_rows, np.bool_))
        # By a dict: to look 16 ids up, Arrow would hash the unit's thousands anew for each block.
        clip_ids = rows["clip_id"].to_pylist()
        found = [opened.places.get(clip_id, -1) for clip_id in clip_ids]
        if -1 in found:
            unknown = [clip_id for clip_id in clip_ids if clip_id not in opened.places]
            raise ValueError(f"{len(unknown)} rows of unit {unit} are not of its plan, e.g. {unknown[:3]}")
        positions, first = np.unique(np.array(found, np.int64), return_index=True)
        is_new = ~opened.received[positions]
        positions, first = positions[is_new], first[is_new]
        self.num_dropped += rows.num_rows - len(positions)
        if len(positions):
            # take() copies: a slice would keep the whole block it came in alive in Ray's object store.
            opened.rows.append(rows.select(self._results).take(pa.array(first)))
            opened.positions.append(positions)
            opened.received[positions] = True
        return opened

    def _commit(self, unit: int, opened: _OpenUnit) -> CommittedUnit:
        order = np.argsort(np.concatenate(opened.positions))
        table = joined(opened.clips, pa.concat_tables(opened.rows).take(pa.array(order)), schema=self._schema)
        data = encode_unit(
            table,
            unit=unit,
            owner=self._owner,
            fingerprint=self._plan.fingerprint,
            metadata=self._metadata,
            compression=self._compression,
        )
        is_ours = self._store.put_if_absent(prediction_path(unit), data)
        statuses = count_statuses(table) if is_ours else read_footer(self._store, unit).statuses
        self._pending.discard(unit)
        del self._open[unit]
        return CommittedUnit(unit, table.num_rows, len(data), statuses, is_ours)


def commit_rows(
    store: Store,
    plan: Plan,
    unit: int,
    rows: pa.Table,
    *,
    schema: pa.Schema,
    owner: str,
    metadata: Mapping[str, str],
    compression: str,
) -> CommittedUnit:
    """Commit a unit whose results `rows` are all there, in the plan's order. Raises ValueError where they are not."""
    clips = read_unit(store, unit)
    if not rows["clip_id"].equals(clips["clip_id"]):
        raise ValueError(f"the rows of unit {unit} are not its planned clips in their order")
    table = joined(clips, rows, schema=schema)
    data = encode_unit(
        table, unit=unit, owner=owner, fingerprint=plan.fingerprint, metadata=metadata, compression=compression
    )
    is_ours = store.put_if_absent(prediction_path(unit), data)
    statuses = count_statuses(table) if is_ours else read_footer(store, unit).statuses
    return CommittedUnit(unit, table.num_rows, len(data), statuses, is_ours)


def committed_units(store: Store, plan: Plan) -> set[int]:
    """Units that have their object, by one listing."""
    found = (_UNIT_FILE.match(o.path) for o in store.list(PREDICTIONS_FOLDER))
    return {unit for match in found if match and (unit := int(match[1])) < plan.num_units}


def pending_units(store: Store, plan: Plan) -> list[int]:
    """Planned units that have no object yet, in order; one listing."""
    committed = committed_units(store, plan)
    return [unit for unit in range(plan.num_units) if unit not in committed]


def replace_rows(
    store: Store,
    plan: Plan,
    unit: int,
    rows: pa.Table,
    *,
    owner: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> CommittedUnit:
    """Put `rows` (like those of `UnitCollector.add`) in place of the committed ones with the same clip ids.

    The unit's object is replaced whole; every other row keeps its exact values. `metadata` is added to the footer's.
    Raises ValueError for clip ids that are not of the unit, FileNotFoundError when it is not committed.
    """
    data = store.read_bytes(prediction_path(unit))
    before = decode_unit(data, uri=f"{store.uri}/{prediction_path(unit)}")
    footer = read_footer(store, unit)
    positions = pc.index_in(rows["clip_id"], value_set=before["clip_id"].combine_chunks())
    if positions.null_count or pc.count_distinct(positions).as_py() != rows.num_rows:
        raise ValueError(f"rows for unit {unit} have clip ids twice or not of this unit: {rows['clip_id'].to_pylist()}")
    known = before.select([name for name in before.column_names if name in plan.schema.names])
    after = joined(known.take(positions), rows, schema=before.schema)
    source = np.arange(before.num_rows)
    source[positions.to_numpy()] = before.num_rows + np.arange(rows.num_rows)
    table = pa.concat_tables([before, after]).take(pa.array(source))
    unmark_success(store)  # its counts are no longer true
    encoded = encode_unit(
        table,
        unit=unit,
        owner=owner or secrets.token_hex(8),
        fingerprint=plan.fingerprint,
        metadata={**footer.metadata, "vidcls.first_owner": footer.metadata[OWNER_KEY], **(metadata or {})},
        compression="zstd",
    )
    store.put(prediction_path(unit), encoded)
    return CommittedUnit(unit, table.num_rows, len(encoded), count_statuses(table), is_ours=True)


def joined(clips: pa.Table, results: pa.Table, *, schema: pa.Schema) -> pa.Table:
    """The plan's columns and the results of the same clips, in the same order, as exactly `schema`.

    Raises ValueError for a value the schema does not allow.
    """
    columns = []
    for wanted in schema:
        column = (clips if wanted.name in clips.column_names else results)[wanted.name]
        if column.type != wanted.type:
            try:
                column = column.cast(wanted.type)
            except pa.ArrowException as error:
                raise ValueError(f"column {wanted.name} does not fit the run's {wanted.type}: {error}") from error
        if not wanted.nullable and column.null_count:
            raise ValueError(f"column {wanted.name} has {column.null_count} nulls; the run's schema allows none")
        columns.append(column)
    return pa.table(columns, schema=schema)
