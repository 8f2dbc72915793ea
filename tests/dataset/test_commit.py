"""Commits: exactly the planned rows, once, by the first who puts them there."""

import json
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dataset.conftest import SmallRun
from tests.dataset.rows import RESULTS, labeled, score_of
from vidcls_batch.dataset.commit import UnitCollector, pending_units, read_predictions, replace_rows
from vidcls_batch.dataset.manifest import CLIP_SCHEMA
from vidcls_batch.dataset.plan import prediction_path
from vidcls_batch.dataset.unit_files import OWNER_KEY, read_footer
from vidcls_batch.dataset.verify import is_marked_success, mark_success, verify_run
from vidcls_batch.errors import StorageError

MakeRun = Callable[..., SmallRun]


def test_a_unit_is_committed_when_its_last_clip_arrives_and_not_before(make_run: MakeRun, run_uri: str) -> None:
    run = make_run(run_uri)
    collector = run.collector()
    assert pending_units(run.store, run.plan) == [0, 1, 2]
    assert collector.add(labeled(1, run.ids(1)[:3])) == []
    assert pending_units(run.store, run.plan) == [0, 1, 2]
    (committed,) = collector.add(labeled(1, run.ids(1)[3:]))
    assert (committed.unit, committed.num_rows, committed.statuses, committed.is_ours) == (1, 4, {"ok": 4}, True)
    assert pending_units(run.store, run.plan) == [0, 2]


def test_rows_in_any_order_and_mixture_are_committed_in_plan_order(make_run: MakeRun) -> None:
    run = make_run(clips=40, unit_clips=7)
    rows = pa.concat_tables([labeled(u, run.ids(u)) for u in range(run.plan.num_units)])
    order = list(range(rows.num_rows))
    random.Random(1).shuffle(order)
    collector = run.collector()
    for start in range(0, len(order), 3):
        collector.add(rows.take(order[start : start + 3]))
    assert pending_units(run.store, run.plan) == []
    for unit in range(run.plan.num_units):
        found = read_predictions(run.store, unit)
        assert found["clip_id"].to_pylist() == run.ids(unit)
        assert found["score"].to_pylist() == [score_of(c) for c in run.ids(unit)]
        assert found["caption"].to_pylist() == [f"no {c}" for c in run.ids(unit)]


def test_a_clip_that_comes_twice_keeps_its_first_row(make_run: MakeRun) -> None:
    run = make_run()
    collector = run.collector()
    ids = run.ids(0)
    collector.add(labeled(0, [ids[0], ids[0], ids[1]], label="push"))
    collector.add(labeled(0, ids[:2], label="pull"))
    collector.add(labeled(0, ids[2:], label="push"))
    collector.add(labeled(0, ids, label="pull"))  # the unit is committed by now
    assert read_predictions(run.store, 0)["label"].to_pylist() == ["push"] * 4
    assert collector.num_dropped == 1 + 2 + 4


def test_rows_stay_across_passes_and_missing_tells_the_rest(make_run: MakeRun) -> None:
    run = make_run()
    collector = run.collector()
    collector.add(labeled(0, run.ids(0)[1:3]))
    collector.add(labeled(2, run.ids(2)))
    assert collector.missing() == {0: [run.ids(0)[0], run.ids(0)[3]], 1: run.ids(1)}
    assert collector.missing([1, 2]) == {1: run.ids(1)}
    assert collector.open_units == [0]
    (committed,) = collector.add(labeled(0, [run.ids(0)[0], run.ids(0)[3]], status="poison"))
    assert committed.statuses == {"ok": 2, "poison": 2}


def test_a_row_the_plan_does_not_know_is_a_bug_and_raises(make_run: MakeRun) -> None:
    run = make_run()
    collector = run.collector()
    with pytest.raises(ValueError, match=r"1 rows of unit 0 are not of its plan, e\.g\. \['stranger'\]"):
        collector.add(labeled(0, ["stranger"]))
    with pytest.raises(ValueError, match="rows of unit 3; the plan has 3"):
        collector.add(labeled(3, ["clip-000"]))
    with pytest.raises(ValueError, match="rows of unit -1"):
        collector.add(labeled(-1, ["clip-000"]))


def test_rows_with_other_columns_than_the_runs_raise(make_run: MakeRun) -> None:
    run = make_run()
    rows = labeled(0, run.ids(0))
    with pytest.raises(ValueError, match=r"missing \['label'\]"):
        run.collector().add(rows.drop_columns(["label"]))
    with pytest.raises(ValueError, match=r"unknown \['frames'\]"):
        run.collector().add(rows.append_column("frames", pa.nulls(4)))
    with pytest.raises(ValueError, match="column status has 4 nulls"):
        run.collector().add(rows.set_column(2, "status", pa.nulls(4, pa.string())))
    with pytest.raises(ValueError, match="column score does not fit the run's float"):
        run.collector().add(rows.set_column(4, "score", pa.array(["high"] * 4)))
    with pytest.raises(ValueError, match="lacks the plan's column caption"):
        UnitCollector(run.plan, store=run.store, schema=pa.schema([*CLIP_SCHEMA, *RESULTS]), owner="o", metadata={})
    assert pending_units(run.store, run.plan) == [0, 1, 2]


def test_of_two_drivers_the_first_commit_stays_and_both_go_on(make_run: MakeRun, run_uri: str) -> None:
    run = make_run(run_uri)
    first, second = run.collector(owner="first"), run.collector(owner="second")
    (won,) = first.add(labeled(0, run.ids(0), label="push"))
    before = run.store.read_bytes(prediction_path(0))
    (lost,) = second.add(labeled(0, run.ids(0), label="pull"))
    assert (won.is_ours, lost.is_ours, lost.statuses) == (True, False, {"ok": 4})
    assert run.store.read_bytes(prediction_path(0)) == before
    assert second.missing([0]) == {}
    second.add(labeled(1, run.ids(1)))
    first.add(labeled(2, run.ids(2)))
    first.add(labeled(1, run.ids(1)))
    assert verify_run(run.store, run.plan).ok


def test_resumed_driver_knows_what_is_committed_and_leaves_it_alone(make_run: MakeRun) -> None:
    run = make_run()
    run.collector().add(labeled(1, run.ids(1), label="push"))
    before = run.store.read_bytes(prediction_path(1))
    resumed = run.collector(owner="resumed")
    assert resumed.add(labeled(1, run.ids(1), label="pull")) == []
    assert run.store.read_bytes(prediction_path(1)) == before
    assert list(resumed.missing()) == [0, 2]


def test_a_commit_the_store_refuses_can_be_made_later_from_the_same_rows(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    collector = run.collector()

    def full(*_: object) -> bool:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(type(run.store), "put_if_absent", full)
        with pytest.raises(StorageError, match="disk is full"):
            collector.add(labeled(0, run.ids(0)))
    assert pending_units(run.store, run.plan) == [0, 1, 2]
    (committed,) = collector.add(labeled(0, run.ids(0)))
    assert committed.num_rows == 4


def test_the_table_reads_as_one_in_pandas_duckdb_and_polars(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(tags=[["a"], None] * 5, weight=[1, None] * 5, empty=[None] * 10)
    run.commit_all()
    mark_success(run.store, verify_run(run.store, run.plan))
    folder = f"{run.store.uri}/predictions"
    frame = pd.read_parquet(folder)
    assert list(frame.columns) == run.schema.names
    assert sorted(frame.clip_id) == [f"clip-{i:03d}" for i in range(10)]
    assert duckdb.sql(f"select count(*), count(distinct clip_id) from '{folder}/*.parquet'").fetchall() == [(10, 10)]
    assert pl.read_parquet(folder).select("tags", "weight", "empty").null_count().row(0) == (5, 5, 10)


def test_every_file_has_exactly_the_runs_schema_also_when_all_failed(make_run: MakeRun) -> None:
    run = make_run()
    collector = run.collector()
    collector.add(labeled(0, run.ids(0)))
    collector.add(labeled(1, run.ids(1), status="fetch_error"))
    for unit in (0, 1):
        schema = pq.read_schema(f"{run.store.uri}/{prediction_path(unit)}")
        assert schema.remove_metadata().equals(run.schema)


def test_the_footer_carries_provenance_and_counts(make_run: MakeRun, run_uri: str) -> None:
    run = make_run(run_uri)
    collector = run.collector(owner="driver-1")
    collector.add(labeled(0, run.ids(0)[:1], status="timeout"))
    collector.add(labeled(0, run.ids(0)[1:]))
    footer = read_footer(run.store, 0)
    assert (footer.num_rows, footer.statuses) == (4, {"ok": 3, "timeout": 1})
    assert footer.metadata["run"] == "facts"
    assert footer.metadata["vidcls.fingerprint"] == run.plan.fingerprint
    assert footer.metadata[OWNER_KEY] == "driver-1"


def test_a_footer_longer_than_one_short_read_is_read_whole(make_run: MakeRun) -> None:
    run = make_run()
    collector = UnitCollector(
        run.plan, store=run.store, schema=run.schema, owner="o", metadata={"config": "x" * 300_000}
    )
    collector.add(labeled(0, run.ids(0)))
    assert len(read_footer(run.store, 0).metadata["config"]) == 300_000


def test_replaced_rows_change_and_all_others_keep_their_exact_values(make_run: MakeRun, run_uri: str) -> None:
    run = make_run(run_uri)
    collector = run.collector()
    ids = run.ids(0)
    collector.add(labeled(0, [ids[1], ids[3]], status="timeout"))
    collector.add(labeled(0, [ids[0], ids[2]]))
    for unit in (1, 2):
        collector.add(labeled(unit, run.ids(unit)))
    mark_success(run.store, verify_run(run.store, run.plan))
    before = read_predictions(run.store, 0)
    replaced = replace_rows(run.store, run.plan, 0, labeled(0, [ids[3], ids[1]], label="pull"), metadata={"retry": "1"})
    after = read_predictions(run.store, 0)
    assert replaced.statuses == {"ok": 4}
    assert after.schema.equals(before.schema)
    assert after.take([0, 2]).equals(before.take([0, 2]))
    assert after["clip_id"].to_pylist() == ids
    assert after["label"].to_pylist() == ["push", "pull", "push", "pull"]
    assert after["score"].to_pylist() == [score_of(c) for c in ids]
    assert after["caption"].to_pylist() == [f"no {c}" for c in ids]
    footer = read_footer(run.store, 0)
    assert footer.statuses == {"ok": 4}
    assert (footer.metadata["run"], footer.metadata["retry"]) == ("facts", "1")
    assert footer.metadata["vidcls.first_owner"] == "owner" != footer.metadata[OWNER_KEY]
    assert not is_marked_success(run.store)
    assert verify_run(run.store, run.plan).ok


def test_replacing_a_clip_of_another_unit_or_one_twice_raises(make_run: MakeRun) -> None:
    run = make_run()
    run.commit_all()
    for ids in ([run.ids(1)[0]], [run.ids(0)[0]] * 2):
        with pytest.raises(ValueError, match="twice or not of this unit"):
            replace_rows(run.store, run.plan, 0, labeled(0, ids))
    run.store.delete(prediction_path(2))
    with pytest.raises(FileNotFoundError):
        replace_rows(run.store, run.plan, 2, labeled(2, run.ids(2)))


@given(data=st.data(), clips=st.integers(1, 40), unit_clips=st.integers(1, 12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_with_repeats_and_restarts_ends_in_exactly_the_plan(
    make_run: MakeRun, data: st.DataObject, clips: int, unit_clips: int
) -> None:
    run = make_run(f"memory://runs/{secrets.token_hex(8)}", clips=clips, unit_clips=unit_clips)
    drivers = [run.collector(owner="left"), run.collector(owner="right")]
    units = list(range(run.plan.num_units))
    for step in range(data.draw(st.integers(0, 15))):
        unit = data.draw(st.sampled_from(units))
        some = data.draw(st.lists(st.sampled_from(run.ids(unit)), min_size=1, max_size=20))
        which = data.draw(st.integers(0, 2))
        if which == 2:  # a driver is killed: what it held is gone
            drivers[step % 2] = run.collector(owner=f"restarted-{step}")
        else:
            drivers[which].add(labeled(unit, some))
    for unit, ids in drivers[0].missing().items():
        drivers[0].add(labeled(unit, ids))
    assert pending_units(run.store, run.plan) == []
    assert verify_run(run.store, run.plan).ok
    table = pa.concat_tables([read_predictions(run.store, unit) for unit in units])
    assert table["clip_id"].to_pylist() == [f"clip-{i:03d}" for i in range(clips)]
    assert table["score"].to_pylist() == [score_of(c) for c in table["clip_id"].to_pylist()]


DRIVER = """
import sys
from tests.dataset.rows import RESULTS, labeled
import pyarrow as pa
from vidcls_batch.dataset.commit import UnitCollector, pending_units
from vidcls_batch.dataset.plan import read_unit, require_plan
from vidcls_batch.storage import StorageOptions, open_store
store = open_store(sys.argv[1], options=StorageOptions())
plan = require_plan(store)
schema = pa.schema([*plan.schema, *RESULTS])
collector = UnitCollector(plan, store=store, schema=schema, owner=sys.argv[2], metadata={})
print("ready", flush=True)
for unit in pending_units(store, plan):
    ids = read_unit(store, unit)["clip_id"].to_pylist()
    for start in range(0, len(ids), 16):
        collector.add(labeled(unit, ids[start:start + 16]))
"""


def _start_driver(uri: str, owner: str) -> subprocess.Popen[str]:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, uri, owner], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "ready\n"
    return driver


def test_driver_killed_at_random_moments_loses_and_doubles_nothing(make_run: MakeRun) -> None:
    run = make_run(clips=600, unit_clips=10)
    chooser = random.Random(7)
    committed: dict[str, bytes] = {}
    for kill in range(4):
        driver = _start_driver(run.store.uri, f"driver-{kill}")
        enough = len(committed) + chooser.randrange(1, 12)
        while len(run.store.list("predictions")) < enough:
            assert driver.poll() is None
        time.sleep(chooser.uniform(0, 0.01))
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
        for path, data in committed.items():
            assert run.store.read_bytes(path) == data, f"{path} was committed and changed"
        committed = {o.path: run.store.read_bytes(o.path) for o in run.store.list("predictions")}
    assert len(committed) < run.plan.num_units, "the run ended before the last kill"
    assert _start_driver(run.store.uri, "last").wait(timeout=120) == 0
    assert verify_run(run.store, run.plan).ok
    for path, data in committed.items():
        assert run.store.read_bytes(path) == data


def test_two_drivers_at_once_share_the_units(make_run: MakeRun) -> None:
    run = make_run(clips=1_000, unit_clips=20)
    drivers = [_start_driver(run.store.uri, name) for name in ("left", "right")]
    assert [d.wait(timeout=120) for d in drivers] == [0, 0]
    assert verify_run(run.store, run.plan).ok
    owners = {read_footer(run.store, unit).metadata[OWNER_KEY] for unit in range(run.plan.num_units)}
    assert owners <= {"left", "right"}


def test_metadata_is_readable_by_any_parquet_reader(make_run: MakeRun) -> None:
    run = make_run()
    run.commit_all()
    metadata = pq.read_metadata(f"{run.store.uri}/{prediction_path(0)}").metadata
    assert json.loads(metadata[b"vidcls.statuses"]) == {"ok": 4}
