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
    """A stand-in for the pipeline: blocks that hold a killer are lost, the others come back."""
    calls: list[int] = []
    state = SimpleNamespace(killers=set(), planned={}, calls=calls)

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
            rows = [{"unit": u, "clip_id": c, "status": "ok", "attempts": a} for u, c, a in block]
            yield pa.Table.from_pylist(rows, schema=SCHEMA)

    monkeypatch.setattr(passes, "label_shares", label_shares)
    return state


def run(
    cluster, planned: dict[int, list[str]], *, canary: Canary | None = None, most: int = 100
) -> tuple[Sink, pa.Table]:
    cluster.planned = planned
    sink = Sink(planned)
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
