"""Verification finds every way in which a table can differ from its plan; status counts without reading it."""

from collections.abc import Callable
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dataset.conftest import SmallRun
from tests.dataset.rows import labeled
from vidcls_batch.dataset.plan import prediction_path, unit_path
from vidcls_batch.dataset.status import run_status
from vidcls_batch.dataset.unit_files import read_predictions
from vidcls_batch.dataset.verify import Verification, is_marked_success, mark_success, verify_run
from vidcls_batch.errors import StorageError, VerificationError

MakeRun = Callable[..., SmallRun]


@pytest.fixture
def finished(make_run: MakeRun, run_uri: str) -> SmallRun:
    run = make_run(run_uri)
    run.commit_all()
    return run


def rewritten(run: SmallRun, unit: int, change: Callable[[pa.Table], pa.Table]) -> Verification:
    """Verify the run after its unit's rows went through `change`."""
    buffer = BytesIO()
    pq.write_table(change(read_predictions(run.store, unit)), buffer)
    run.store.put(prediction_path(unit), buffer.getvalue())
    return verify_run(run.store, run.plan)


def test_a_complete_table_is_verified_and_marked(finished: SmallRun) -> None:
    found = verify_run(finished.store, finished.plan)
    assert found.ok
    assert (found.num_clips, found.num_rows, found.statuses) == (10, 10, {"ok": 10})
    assert "10 planned clips, 10 rows, one each" in str(found)
    assert not is_marked_success(finished.store)
    mark_success(finished.store, found)
    assert is_marked_success(finished.store)
    assert [o.path for o in finished.store.list("predictions")] == [prediction_path(u) for u in range(3)]


def test_missing_units_are_found_and_named(make_run: MakeRun) -> None:
    run = make_run()
    run.collector().add(labeled(1, run.ids(1)))
    found = verify_run(run.store, run.plan)
    assert not found.ok
    assert found.missing_units == (0, 2)
    assert "2 of 3 units are not committed: 0, 2. Resume: vidcls run" in str(found)
    with pytest.raises(VerificationError):
        mark_success(run.store, found)
    assert not is_marked_success(run.store)


def test_a_lost_row_is_found(finished: SmallRun) -> None:
    found = rewritten(finished, 1, lambda rows: rows.slice(1))
    assert found.problems == (f"{prediction_path(1)}: 1 planned clips have no row (clip-004)",)


def test_a_doubled_row_is_found(finished: SmallRun) -> None:
    found = rewritten(finished, 1, lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]))
    assert found.problems == (f"{prediction_path(1)}: 1 rows are of clips that have one already",)


def test_a_row_of_another_unit_is_found(finished: SmallRun) -> None:
    other = read_predictions(finished.store, 0)
    found = rewritten(finished, 1, lambda rows: pa.concat_tables([rows.slice(1), other.slice(0, 1)]))
    assert "1 planned clips have no row (clip-004); 1 rows are of clips that are not planned here (clip-000)" in str(
        found
    )


def test_rows_with_another_clips_uri_are_found(finished: SmallRun) -> None:
    def shift(rows: pa.Table) -> pa.Table:
        return rows.set_column(1, "uri", rows["uri"].take([1, 2, 3, 0]))

    assert "order or their uri column is not the plan's" in str(rewritten(finished, 1, shift))


def test_a_file_with_another_schema_is_found(finished: SmallRun) -> None:
    found = rewritten(finished, 2, lambda rows: rows.drop_columns(["score"]))
    assert found.problems == ("1 units have another schema than the first: 2",)


def test_foreign_files_among_the_predictions_are_found(finished: SmallRun) -> None:
    finished.store.put("predictions/unit-000099.parquet", b"x")
    finished.store.put("predictions/notes.txt", b"x")
    found = verify_run(finished.store, finished.plan)
    assert "2 files in predictions/ are not of this plan: predictions/notes.txt" in str(found)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_file_is_found(finished: SmallRun, damage: str) -> None:
    data = bytearray(finished.store.read_bytes(prediction_path(1)))
    if damage == "flipped":
        data[40] ^= 1  # inside the first column's pages
    finished.store.put(
        prediction_path(1), {"truncated": bytes(data[:-50]), "flipped": bytes(data), "empty": b""}[damage]
    )
    found = verify_run(finished.store, finished.plan)
    assert found.damaged_units == (1,)
    assert f"{prediction_path(1)} cannot be read" in str(found)
    assert found.num_rows == 6


def test_a_damaged_plan_is_found(finished: SmallRun) -> None:
    finished.store.put(unit_path(0), finished.store.read_bytes(unit_path(2)))
    finished.store.delete(unit_path(1))
    found = verify_run(finished.store, finished.plan)
    assert "the plan of unit 0 holds 2 clips, not 4" in str(found)
    assert "the plan of unit 1 cannot be read" in str(found)


def test_status_counts_what_is_committed(make_run: MakeRun, run_uri: str) -> None:
    run = make_run(run_uri)
    assert run_status(run.store).statuses == {}
    collector = run.collector()
    collector.add(labeled(1, run.ids(1), status="timeout"))
    collector.add(labeled(2, run.ids(2)))
    status = run_status(run.store)
    assert (status.committed_units, status.num_units) == (2, 3)
    assert (status.committed_clips, status.num_clips) == (6, 10)
    assert status.statuses == {"timeout": 4, "ok": 2}
    assert not status.finished
    assert "6 of 10 (60.0%)" in str(status)
    collector.add(labeled(0, run.ids(0)))
    mark_success(run.store, verify_run(run.store, run.plan))
    status = run_status(run.store)
    assert (status.finished, status.statuses) == (True, {"ok": 6, "timeout": 4})


def test_status_of_a_damaged_file_or_no_run_says_so(make_run: MakeRun, tmp_path: object) -> None:
    run = make_run()
    run.store.put(prediction_path(0), b"not parquet")
    with pytest.raises(StorageError, match=r"unit-000000\.parquet is damaged"):
        run_status(run.store)
