import pyarrow as pa
import pyarrow.compute as pc
import pytest

from vidcls_batch.canary import check_canary, choose_canary
from vidcls_batch.dataset.commit import read_predictions
from vidcls_batch.dataset.plan import require_plan
from vidcls_batch.errors import VerificationError
from vidcls_batch.storage import StorageOptions, open_store


@pytest.fixture
def store(finished_once):
    return open_store(finished_once.run.path, options=StorageOptions())


@pytest.fixture
def canary(store):
    return choose_canary([0, 1], store=store, plan=require_plan(store), num_clips=4)


def second_look(store, canary, **changes: object) -> pa.Table:
    """What the pipeline gives for the canary clips when nothing is wrong, with one row changed."""
    tables = []
    for clip_id, unit in canary.units.items():
        rows = read_predictions(store, unit)
        tables.append(rows.filter(pc.equal(rows["clip_id"], clip_id)))
    rows = pa.concat_tables(tables).to_pylist()
    rows[1] |= changes
    return pa.Table.from_pylist(rows, schema=tables[0].schema)


def test_canary_is_spread_over_units_and_the_same_each_time(store, canary):
    plan = require_plan(store)
    assert choose_canary([0, 1], store=store, plan=plan, num_clips=4) == canary
    assert len(canary.units) == 4
    assert set(canary.units.values()) == {0, 1}
    assert choose_canary([0, 1, 2], store=store, plan=plan, num_clips=0).units == {}
    assert len(choose_canary([2], store=store, plan=plan, num_clips=100).units) == 3


def test_equal_labels_pass(store, canary):
    assert check_canary(canary, second_look(store, canary), store=store, device="cpu") == []


def test_another_score_fails_the_run_and_names_the_clip(store, canary):
    clip_id = list(canary.units)[1]
    with pytest.raises(VerificationError, match=clip_id):
        check_canary(canary, second_look(store, canary, score=0.01), store=store, device="cpu")


def test_swapped_rows_fail_the_run(store, canary):
    rows = second_look(store, canary)
    ids = rows["clip_id"].to_pylist()
    swapped = rows.set_column(rows.column_names.index("clip_id"), "clip_id", pa.array(ids[1:] + ids[:1]))
    hashes = [second["content_hash"] for second in rows.to_pylist()]
    fixed = swapped.set_column(
        swapped.column_names.index("content_hash"), "content_hash", pa.array(hashes[1:] + hashes[:1])
    )
    with pytest.raises(VerificationError, match="cannot be trusted"):
        check_canary(canary, fixed, store=store, device="cpu")


def test_video_that_changed_meanwhile_is_a_warning(store, canary):
    rows = second_look(store, canary, content_hash="0" * 64, score=0.01)
    (warning,) = check_canary(canary, rows, store=store, device="cpu")
    assert "changed while the run was going on" in warning


def test_clip_that_failed_the_second_time_says_nothing_about_labels(store, canary):
    rows = second_look(store, canary, status="timeout", score=None)
    assert check_canary(canary, rows, store=store, device="cpu") == []
