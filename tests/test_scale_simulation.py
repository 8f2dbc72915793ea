"""The scale simulation, small: a killed driver, a resumed one, every clip once, nothing written again."""

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.scale_simulation import MEMBERS, simulate, stand_in_rows
from vidcls_batch.schema import result_schema


def test_stand_ins_make_rows_of_the_runs_schema():
    ids = [f"{n:09d}" for n in range(2000)]
    clips = pa.table(
        {"clip_id": ids, "unit": pa.array([0] * 2000, pa.int32()), "attempts": pa.array([1] * 2000, pa.int32())}
    )
    rows = stand_in_rows(clips, MEMBERS)
    assert rows.schema.equals(result_schema(MEMBERS))
    assert rows["status"].to_pylist().count("decode_error") == 2
    assert rows["label"][401].as_py() == "class 1"


@pytest.mark.slow
def test_twelve_thousand_clips_end_as_twelve_thousand_rows(tmp_path: Path) -> None:
    given = argparse.Namespace(clips=12_000, unit_clips=1000, batch_size=250, kill_at=0.3, direct=False)
    found = simulate(given, tmp_path)
    assert set(found) == {"rows_per_s", "driver_mib", "verify_s", "status_s"}
    table = pq.read_table(tmp_path / "run" / "predictions", columns=["clip_id", "status", "label_id"])
    assert sorted(table["clip_id"].to_pylist()) == [f"{n:09d}" for n in range(12_000)]
    assert table["status"].to_pylist().count("decode_error") == 12
    assert all(
        i == int(c) % 400 for c, i in zip(table["clip_id"].to_pylist(), table["label_id"].to_pylist(), strict=True)
    )
