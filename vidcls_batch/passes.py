"""Passes over what is not committed: whole blocks first, then smaller ones until a poison clip stands alone.

Beside them, clips whose object could not be had are tried again, in whole blocks: see `held_clips`.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from vidcls_batch.canary import ROUTE as CANARY_ROUTE
from vidcls_batch.canary import Canary
from vidcls_batch.errors import IncompleteRunError, Stage, Status
from vidcls_batch.held_clips import MOST_HELD_UNITS, PAUSES_S, HeldClips
from vidcls_batch.pipeline import BLOCK_RETRIES, BlockErrors, Stages, UnitShare, label_shares
from vidcls_batch.progress import RunProgress
from vidcls_batch.resources import StageResources
from vidcls_batch.run_watch import MOST_IDS, RunWatch
from vidcls_batch.schema import result_schema

# More lost blocks than this, and than this share of those that came back: the job or the cluster is at fault.
LOST_BLOCKS_BORNE = 50
LOST_BLOCKS_SHARE = 0.2

Clips = Mapping[int, Sequence[str] | None]  # unit -> clip ids, None for all


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
    todo: Clips,
    *,
    sink: RowSink,
    canary: Canary,
    stages: Stages,
    resources: StageResources,
    max_poison_clips: int,
    progress: RunProgress,
    watch: RunWatch | None = None,
) -> pa.Table:
    """Label `todo` into `sink`; returns the canary clips' rows (`result_schema`).

    A clip whose worker dies in every pass is committed as `poison`; one whose object cannot be had in any try, spread
    over the run, as `fetch_error`. Raises IncompleteRunError when so many are lost that the clips cannot be the reason.
    """
    schema = result_schema(stages.classify.columns)
    units = list(todo)
    watch = watch or RunWatch()
    passes = _Passes(sink, canary, stages, resources, progress, watch, BlockErrors(told=watch.block_lost))
    sizes = block_sizes(resources.batch_size)
    passes.go_through(todo, attempt=1, size=sizes[0])
    for attempt, size in enumerate(sizes[1:], start=2):
        missing = sink.missing(units)
        if not missing:
            break
        count = sum(map(len, missing.values()))
        progress.say(f"{count:,} clips did not come back ({passes.errors.last}): trying them again in blocks of {size}")
        watch.tried_again(missing, count=count, why="worker_died", reason=passes.errors.last, attempt=attempt)
        passes.go_through(missing, attempt=attempt, size=size)
    missing = sink.missing(units)
    if missing:
        lost = sum(map(len, missing.values()))
        if lost > max_poison_clips:
            raise IncompleteRunError(
                f"{lost:,} clips did not come back in {len(sizes)} passes, more than run.max_poison_clips="
                f"{max_poison_clips} allows: that many clips hardly kill their workers by themselves. "
                f"Last reason: {passes.errors.last}. The finished units are committed; mend the cause, then run the "
                "same command again."
            )
        progress.say(f"{lost:,} clips killed their worker in every pass: their rows say poison")
        for unit, ids in missing.items():
            watch.note("poison", unit=unit, clip_ids=list(ids), reason=passes.errors.last)
        passes.hand_on(_poison_rows(missing, attempts=len(sizes), reason=passes.errors.last, schema=schema))
    return pa.concat_tables(passes.canary_rows).cast(schema) if passes.canary_rows else schema.empty_table()


@dataclass(slots=True)
class _Passes:
    """The state that passes share."""

    sink: RowSink
    canary: Canary
    stages: Stages
    resources: StageResources
    progress: RunProgress
    watch: RunWatch
    errors: BlockErrors
    held: HeldClips = field(default_factory=HeldClips)
    canary_rows: list[pa.Table] = field(default_factory=list)

    def go_through(self, todo: Clips, *, attempt: int, size: int) -> None:
        """Label `todo`; clips that do not come back stay missing in the sink."""
        whole = False
        while not whole:
            whole, seen = self._stream(todo, attempt=attempt, size=size, may_stop=True)
            self._try_held_again(attempt=attempt, size=size)
            # Begun units first, so that they do not stay open; of the others no plan need be read to know what is left.
            todo = {**self.sink.missing(sorted(seen)), **{u: ids for u, ids in todo.items() if u not in seen}}
            whole = whole or not todo

    def _try_held_again(self, *, attempt: int, size: int) -> None:
        for again, pause_s in enumerate(PAUSES_S, start=1):
            if not self.held:
                return
            self.progress.say(
                f"{len(self.held):,} clips could not be fetched ({self.held.reason}): "
                f"trying them again in {pause_s:g} s"
            )
            clips, count, reason = self.held.clips, len(self.held), self.held.reason
            self.watch.tried_again(clips, count=count, why="fetch", reason=reason, attempt=attempt + again)
            time.sleep(pause_s)
            self._stream(self.held.take_all(), attempt=attempt + again, size=size, may_stop=False)
        if (rows := self.held.release()) is not None:
            self.watch.note("fetch_given_up", clip_ids=rows["clip_id"].to_pylist()[:MOST_IDS], count=len(rows))
            self.progress.say(f"{len(rows):,} clips could not be fetched in {1 + len(PAUSES_S)} tries over the run")
            self.hand_on(rows)

    def _stream(self, todo: Clips, *, attempt: int, size: int, may_stop: bool) -> tuple[bool, set[int]]:
        """Whether all of `todo` went through, and the units that rows came back of."""
        shares = [_share(unit, ids, attempt=attempt) for unit, ids in todo.items()]
        extra = self.canary.shares if attempt == 1 and not self.canary_rows else []
        resized = self.resources.with_batch_size(size)
        work = label_shares([*shares, *extra], stages=self.stages, resources=resized, errors=self.errors)
        seen: set[int] = set()
        # Closed here, also when a commit fails: what still runs when Ray is shut down waits for it for ever.
        with closing(work) as tables:
            for received, rows in enumerate(tables, start=1):
                # In Python as long as nothing is to be done: a block has a few rows, and each call into Arrow gives the
                # interpreter away to Ray Data's threads, which take milliseconds to give it back.
                units = set(rows["unit"].to_pylist())
                planned = rows
                if CANARY_ROUTE in units:
                    is_canary = pc.equal(rows["unit"], CANARY_ROUTE)
                    self.canary_rows.append(rows.filter(is_canary))
                    planned = rows.filter(pc.invert(is_canary))
                seen |= units - {CANARY_ROUTE}
                self.watch.block(rows)
                self.hand_on(self.held.sift(planned))
                self.watch.held(len(self.held))
                _stop_when_hopeless(self.errors, received=received)
                if may_stop and self.held.num_units > MOST_HELD_UNITS:
                    return False, seen
        return True, seen

    def hand_on(self, rows: pa.Table) -> None:
        """Rows for the table."""
        self.sink.add(rows)
        statuses = Counter(rows["status"].to_pylist())
        self.progress.add(statuses)
        self.watch.rows(statuses)


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
