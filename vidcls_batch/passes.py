"""Passes over what is not committed: whole blocks first, then smaller ones until a poison clip stands alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from vidcls_batch.canary import ROUTE as CANARY_ROUTE
from vidcls_batch.canary import Canary
from vidcls_batch.errors import IncompleteRunError, Stage, Status
from vidcls_batch.pipeline import BLOCK_RETRIES, BlockErrors, Stages, UnitShare, label_shares
from vidcls_batch.progress import RunProgress
from vidcls_batch.resources import StageResources
from vidcls_batch.schema import result_schema

# More lost blocks than this, and than this share of those that came back: the job or the cluster is at fault.
LOST_BLOCKS_BORNE = 50
LOST_BLOCKS_SHARE = 0.2


def block_sizes(batch_size: int) -> list[int]:
    """Clips per block in each pass: all, a quarter, one.

    >>> block_sizes(16)
    [16, 4, 1]
    """
    return sorted({batch_size, max(1, batch_size // 4), 1}, reverse=True)


class RowSink(Protocol):
    """Where labeled rows go: to the table of a run, or in place of failed rows."""

    def add(self, rows: pa.Table) -> object:
        """Take rows of `result_schema`; those it already has are dropped."""
        ...

    def missing(self, units: Sequence[int]) -> Mapping[int, Sequence[str]]:
        """Clip ids of `units` that have no row yet; units without any are left out."""
        ...


def label_in_passes(
    todo: Mapping[int, Sequence[str] | None],
    *,
    sink: RowSink,
    canary: Canary,
    stages: Stages,
    resources: StageResources,
    max_poison_clips: int,
    progress: RunProgress,
) -> pa.Table:
    """Label `todo` (unit -> clip ids, None for all) into `sink`; returns the canary clips' rows (`result_schema`).

    A clip whose worker dies in every pass is committed as `poison`. Raises IncompleteRunError when so many are lost
    that the clips cannot be the reason.
    """
    schema = result_schema(stages.classify.columns)
    units = list(todo)
    canary_rows: list[pa.Table] = []
    errors = BlockErrors()
    shares = [_share(unit, ids, attempt=1) for unit, ids in todo.items()]
    sizes = block_sizes(resources.batch_size)
    for attempt, size in enumerate(sizes, start=1):
        if attempt > 1:
            missing = sink.missing(units)
            if not missing:
                break
            progress.say(
                f"{sum(map(len, missing.values())):,} clips did not come back ({errors.last}): "
                f"trying them again in blocks of {size}"
            )
            shares = [_share(unit, ids, attempt=attempt) for unit, ids in missing.items()]
        extra = canary.shares if attempt == 1 else []
        resized = resources.with_batch_size(size)
        work = label_shares([*shares, *extra], stages=stages, resources=resized, errors=errors)
        # Closed here, also when a commit fails: what still runs when Ray is shut down waits for it for ever.
        with closing(work) as tables:
            for received, rows in enumerate(tables, start=1):
                is_canary = pc.equal(rows["unit"], CANARY_ROUTE)
                if pc.any(is_canary).as_py():
                    canary_rows.append(rows.filter(is_canary))
                planned = rows.filter(pc.invert(is_canary))
                sink.add(planned)
                progress.add(Counter(planned["status"].to_pylist()))
                _stop_when_hopeless(errors, received=received)
    missing = sink.missing(units)
    if missing:
        lost = sum(map(len, missing.values()))
        if lost > max_poison_clips:
            raise IncompleteRunError(
                f"{lost:,} clips did not come back in {len(sizes)} passes, more than run.max_poison_clips="
                f"{max_poison_clips} allows: that many clips hardly kill their workers by themselves. "
                f"Last reason: {errors.last}. The finished units are committed; mend the cause, then run the same "
                "command again."
            )
        progress.say(f"{lost:,} clips killed their worker in every pass: their rows say poison")
        rows = _poison_rows(missing, attempts=len(sizes), reason=errors.last, schema=schema)
        sink.add(rows)
        progress.add({Status.POISON.value: lost})
    return pa.concat_tables(canary_rows).cast(schema) if canary_rows else schema.empty_table()


def _share(unit: int, clip_ids: Sequence[str] | None, *, attempt: int) -> UnitShare:
    return UnitShare(unit=unit, attempts=attempt, clip_ids=None if clip_ids is None else tuple(clip_ids))


def _stop_when_hopeless(errors: BlockErrors, *, received: int) -> None:
    if errors.count > LOST_BLOCKS_BORNE and errors.count > LOST_BLOCKS_SHARE * received:
        raise IncompleteRunError(
            f"{errors.count} blocks were lost against {received} that came back; the last one by: {errors.last}. "
            "The finished units are committed; mend the cause, then run the same command again."
        )


def _poison_rows(missing: Mapping[int, Sequence[str]], *, attempts: int, reason: str, schema: pa.Schema) -> pa.Table:
    tries = attempts * (1 + BLOCK_RETRIES)
    row = {
        "status": Status.POISON.value,
        "error_stage": Stage.RUN.value,
        "error_code": "worker_died",
        "error_message": f"The worker process died each of the {tries} times this clip was in it: {reason}",
        "attempts": attempts,
    }
    return pa.Table.from_pylist(
        [row | {"unit": unit, "clip_id": clip_id} for unit, ids in missing.items() for clip_id in ids], schema=schema
    )
