"""What the driver decides when blocks are lost, without Ray: `label_shares` is replaced by a plain loop."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pyarrow as pa
import pytest

from vidcls_batch import passes
from vidcls_batch.canary import Canary
from vidcls_batch.config import ResourcesConfig
from vidcls_batch.errors import IncompleteRunError
from vidcls_batch.passes import block_sizes, label_in_passes
from vidcls_batch.pipeline import BlockErrors, UnitShare
from vidcls_batch.progress import SilentProgress
from vidcls_batch.resources import Capacity, stage_resources
from vidcls_batch.schema import MemberColumns, result_schema

COLUMNS = (MemberColumns("m"),)
SCHEMA = result_schema(COLUMNS)


class Sink:
    """Rows by clip id; knows what is planned."""

    def __init__(self, planned: dict[int, list[str]]) -> None:
        self.planned = planned
        self.rows: dict[str, dict] = {}

    def add(self, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            self.rows.setdefault(row["clip_id"], row)

    def missing(self, units: Sequence[int]) -> dict[int, list[str]]:
        left = {u: [c for c in self.planned[u] if c not in self.rows] for u in units}
        return {u: ids for u, ids in left.items() if ids}


@pytest.fixture
def cluster(monkeypatch):
    """A stand-in for the pipeline: blocks that hold a killer are lost, the others come back; of the clips in `outages`
    the store gives nothing so many times."""
    calls: list[int] = []
    state = SimpleNamespace(killers=set(), planned={}, calls=calls, outages={}, code="storage")
    monkeypatch.setattr(passes, "PAUSES_S", (0.0, 0.0))

    def outcome(clip_id: str) -> dict[str, str]:
        if state.outages.get(clip_id, 0) == 0:
            return {"status": "ok"}
        state.outages[clip_id] -= 1
        return {"status": "fetch_error", "error_code": state.code, "error_message": "503 slow down"}

    def label_shares(shares: Sequence[UnitShare], *, stages, resources, errors: BlockErrors) -> Iterator[pa.Table]:
        calls.append(resources.batch_size)
        work = []
        for share in shares:
            ids = share.clip_ids if share.clip_ids is not None else state.planned[share.unit]
            route = share.unit if share.route is None else share.route
            work += [(route, clip_id, share.attempts) for clip_id in ids]
        for start in range(0, len(work), resources.batch_size):
            block = work[start : start + resources.batch_size]
            if any(clip_id in state.killers for _, clip_id, _ in block):
                errors.add("WorkerCrashedError: signal 9")
                continue
            rows = [{"unit": u, "clip_id": c, "attempts": a, **outcome(c)} for u, c, a in block]
            yield pa.Table.from_pylist(rows, schema=SCHEMA)

    monkeypatch.setattr(passes, "label_shares", label_shares)
    return state


def run(
    cluster,
    planned: dict[int, list[str]],
    *,
    canary: Canary | None = None,
    most: int = 100,
    sink: Sink | None = None,
) -> tuple[Sink, pa.Table]:
    cluster.planned = planned
    sink = sink or Sink(planned)
    resources = stage_resources(
        ResourcesConfig(batch_size=16), capacity=Capacity(num_cpus=2, num_gpus=0, private=True), frame_bytes=1
    )
    again = label_in_passes(
        dict.fromkeys(planned),
        sink=sink,
        canary=canary or Canary({}),
        stages=SimpleNamespace(classify=SimpleNamespace(columns=COLUMNS)),
        resources=resources,
        max_poison_clips=most,
        progress=SilentProgress(),
    )
    return sink, again


def planned(num_clips: int) -> dict[int, list[str]]:
    ids = [f"c{i}" for i in range(num_clips)]
    return {u: ids[start : start + 50] for u, start in enumerate(range(0, num_clips, 50))}


def test_without_losses_one_pass_is_all(cluster):
    sink, _ = run(cluster, planned(100))
    assert cluster.calls == [16]
    assert len(sink.rows) == 100


def test_killers_are_cornered_by_ever_smaller_blocks_and_only_they_are_poison(cluster):
    cluster.killers = {"c7", "c8", "c93"}
    sink, _ = run(cluster, planned(100))
    assert cluster.calls == [16, 4, 1]
    poison = {c for c, row in sink.rows.items() if row["status"] == "poison"}
    assert poison == cluster.killers
    assert len(sink.rows) == 100
    row = sink.rows["c7"]
    assert (row["error_stage"], row["error_code"], row["attempts"]) == ("run", "worker_died", 3)
    assert "9 times" in row["error_message"]
    assert "signal 9" in row["error_message"]
    assert sink.rows["c9"]["attempts"] in (2, 3)


def test_more_poison_than_allowed_ends_the_run_and_commits_none_of_it(cluster):
    cluster.killers = {f"c{i}" for i in range(0, 100, 10)}
    cluster.planned = planned(100)
    with pytest.raises(IncompleteRunError, match="10 clips did not come back"):
        run(cluster, planned(100), most=9)


def test_cluster_that_loses_nearly_everything_is_given_up_early(cluster):
    cluster.killers = {f"c{i}" for i in range(1600)}
    with pytest.raises(IncompleteRunError, match="did not come back"):
        run(cluster, planned(1600))
    cluster.killers = {f"c{i}" for i in range(1500)}
    cluster.calls.clear()
    with pytest.raises(IncompleteRunError, match="blocks were lost"):
        run(cluster, planned(1600))
    assert cluster.calls == [16]


def test_canary_rows_come_back_apart_from_the_table(cluster):
    sink, again = run(cluster, planned(100), canary=Canary({"c3": 0, "c70": 1}))
    assert sorted(again["clip_id"].to_pylist()) == ["c3", "c70"]
    assert set(again["unit"].to_pylist()) == {-1}
    assert len(sink.rows) == 100


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1]), (2, [2, 1]), (4, [4, 1]), (32, [32, 8, 1])])
def test_block_sizes_end_at_one_without_repeats(batch, sizes):
    assert block_sizes(batch) == sizes


def test_clips_whose_store_was_down_get_their_label_once_it_is_back(cluster):
    cluster.outages = {f"c{i}": 1 + i % 2 for i in range(0, 100, 9)}
    sink, _ = run(cluster, planned(100))
    assert {row["status"] for row in sink.rows.values()} == {"ok"}
    assert len(sink.rows) == 100
    assert cluster.calls == [16, 16, 16]
    assert (sink.rows["c0"]["attempts"], sink.rows["c9"]["attempts"], sink.rows["c1"]["attempts"]) == (2, 3, 1)


def test_store_that_stays_down_for_a_clip_makes_it_a_row_after_the_last_try(cluster):
    cluster.outages = {"c5": 99}
    sink, _ = run(cluster, planned(100))
    row = sink.rows["c5"]
    assert (row["status"], row["error_code"], row["attempts"]) == ("fetch_error", "storage", 3)
    assert len(sink.rows) == 100


def test_missing_object_is_a_row_at_once(cluster):
    cluster.outages, cluster.code = {"c5": 99}, "not_found"
    sink, _ = run(cluster, planned(100))
    assert (sink.rows["c5"]["status"], sink.rows["c5"]["attempts"]) == ("fetch_error", 1)
    assert cluster.calls == [16]


def test_clip_that_kills_its_worker_after_the_store_was_down_is_poison(cluster):
    cluster.outages, cluster.killers = {"c5": 1}, {"c6"}
    sink, _ = run(cluster, planned(100))
    assert {c for c, row in sink.rows.items() if row["status"] != "ok"} == {"c6"}


def test_bad_store_does_not_keep_units_open_till_the_end(cluster, monkeypatch):
    monkeypatch.setattr(passes, "MOST_HELD_UNITS", 3)
    cluster.outages = {f"c{i}": 1 for i in range(0, 1000, 50)}  # one clip of each of the 20 units
    open_units: list[int] = []

    class WatchedSink(Sink):
        def add(self, rows: pa.Table) -> None:
            super().add(rows)
            touched = [u for u, ids in self.planned.items() if any(c in self.rows for c in ids)]
            open_units.append(len(self.missing(touched)))

    sink = WatchedSink(planned(1000))
    run(cluster, planned(1000), sink=sink)
    assert len(sink.rows) == 1000
    assert {row["status"] for row in sink.rows.values()} == {"ok"}
    assert max(open_units) <= 5
