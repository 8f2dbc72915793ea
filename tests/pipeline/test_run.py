import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from pipeline.conftest import save_manifest
from worker_faults import BACKEND, with_fault

from vidcls_batch import failure_brake
from vidcls_batch.errors import ConfigError, IncompleteRunError, ManifestError, RunMismatchError, Status
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.peek import peek_at
from vidcls_batch.pipeline import BLOCK_FACTS
from vidcls_batch.progress import SilentProgress
from vidcls_batch.retry import retry_failed
from vidcls_batch.storage import StorageOptions

pytestmark = pytest.mark.usefixtures("ray_session")
NOTHING_SAID = SilentProgress()


class Said(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "predictions").set_index("clip_id")


def file_bytes(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "predictions").iterdir())}


def png_bomb() -> bytes:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    side = 16000
    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(side * 3 + 1) * 64) * 4
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture
def bad_files(tmp_path, clips) -> dict[str, Path]:
    """Name of the fault -> a file that has it."""
    folder = tmp_path / "bad"
    folder.mkdir()
    good = clips[0].read_bytes()
    contents = {
        "zero_byte": b"",
        "garbage": np.random.default_rng(0).bytes(50_000),
        "truncated": good[: len(good) // 3],
        "text": b"this is no video\n" * 100,
        "png_bomb": png_bomb(),
        "hang": with_fault(good, "hang"),
        "segfault": with_fault(good, "segfault"),
        "kills_worker": with_fault(good, "kill-worker"),
    }
    for name, data in contents.items():
        (folder / f"{name}.mp4").write_bytes(data)
    (folder / "directory.mp4").mkdir()
    names = [*contents, "directory", "missing"]
    return {name: folder / f"{name}.mp4" for name in names}


EXPECTED = {
    "zero_byte": {"decode_error"},
    "garbage": {"decode_error"},
    "truncated": {"decode_error", "ok"},
    "text": {"decode_error"},
    "png_bomb": {"decode_error", "too_large"},
    "hang": {"timeout"},
    "segfault": {"crashed"},
    "kills_worker": {"poison"},
    "directory": {"fetch_error"},
    "missing": {"fetch_error"},
}


def test_every_bad_clip_is_one_row_with_its_status_and_every_other_row_is_right(
    make_config, write_manifest, clips, bad_files
):
    uris = [*clips[:6], *bad_files.values(), *clips[6:]]
    names = [p.stem for p in uris]
    notes = [None if i % 3 else f"note {i}" for i in range(len(uris))]
    manifest = write_manifest(uris, name=names, note=notes, weight=np.arange(len(uris)) / 7)
    config = make_config(manifest, decode={"backend": BACKEND, "timeout_s": 3.0, "memory_mb": 1024})

    outcome = run_labeling(config, progress=NOTHING_SAID)

    table = predictions(Path(config.run.path))
    assert list(table.index) == [f"c{i:04d}" for i in range(len(uris))]
    assert outcome.num_clips == len(uris)
    by_name = table.set_index("name", drop=False)
    for name, allowed in EXPECTED.items():
        row = by_name.loc[name]
        assert row["status"] in allowed, (name, row["status"], row["error_message"])
        if row["status"] != "ok":
            assert row["error_code"]
            assert row["error_message"]
            assert row["error_stage"]
            assert pd.isna(row["label"])
    good = by_name.loc[[p.stem for p in clips]]
    assert set(good["status"]) == {"ok"}
    assert [None if pd.isna(note) else note for note in table["note"]] == notes
    assert table["weight"].tolist() == (np.arange(len(uris)) / 7).tolist()
    for path in clips[::4]:  # the labels are those of the clip's own frames
        alone = peek_at(str(path), config=config).row
        assert good.loc[path.stem, "label"] == alone["label"]
        assert good.loc[path.stem, "score"] == pytest.approx(alone["score"], abs=1e-4)
        assert good.loc[path.stem, "ts_score"] == pytest.approx(alone["ts_score"], abs=1e-4)
        assert good.loc[path.stem, "content_hash"] == alone["content_hash"]
    assert_events_explain_the_failures(Path(config.run.path), table.reset_index().set_index("name"))


def assert_events_explain_the_failures(run: Path, by_name: pd.DataFrame) -> None:
    """Each kill, each retry and each clip given up is told, by clip id."""
    told = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    ids = {name: by_name.loc[name, "clip_id"] for name in ("hang", "segfault")}
    deaths = {e["clip_id"]: e for e in told if e["event"] in ("decoder_killed", "decoder_died")}
    assert deaths[ids["hang"]]["event"] == "decoder_killed"
    assert (deaths[ids["segfault"]]["event"], deaths[ids["segfault"]]["code"]) == ("decoder_died", "sigsegv")
    assert {e["event"] for e in told} >= {
        "driver_started",
        "block_lost",
        "clips_tried_again",
        "poison",
        "clips_through",
    }
    assert sum(e["event"] == "unit_committed" for e in told) == len(list((run / "predictions").iterdir()))
    assert all(e["run"] == str(run) and e["driver"] for e in told)


def test_finished_run_run_again_does_nothing_and_says_so(finished):
    run = Path(finished.run.path)
    before = file_bytes(run)
    said = Said()
    outcome = run_labeling(finished, progress=said)
    assert outcome.labeled_now == 0
    assert any("nothing to do" in line for line in said.lines)
    assert file_bytes(run) == before


def test_resume_labels_only_what_is_missing_and_leaves_committed_units_as_they_are(finished):
    run = Path(finished.run.path)
    before = file_bytes(run)
    (run / "predictions" / "unit-000001.parquet").unlink()
    (run / "_SUCCESS").unlink()
    outcome = run_labeling(finished, progress=NOTHING_SAID)
    after = file_bytes(run)
    assert outcome.labeled_now == 5
    assert outcome.classifiers_busy is not None
    assert 0 < outcome.classifiers_busy <= 1
    assert "of their time scoring" in str(outcome)
    footer = pq.read_schema(run / "predictions" / "unit-000001.parquet").metadata or {}
    assert BLOCK_FACTS not in footer
    assert after.keys() == before.keys()
    assert {n: d for n, d in after.items() if n != "unit-000001.parquet"} == {
        n: d for n, d in before.items() if n != "unit-000001.parquet"
    }


def test_changed_config_on_the_same_folder_is_refused_with_the_difference(finished, make_config):
    changed = make_config(finished.manifest.path, ensemble={"top_k": 2})
    with pytest.raises(RunMismatchError, match=r"ensemble\.top_k: 3 → 2"):
        run_labeling(changed, progress=NOTHING_SAID)


def test_changed_resources_are_no_other_run(finished, make_config):
    changed = make_config(finished.manifest.path, resources={"batch_size": 2, "num_cpus": 1})
    assert run_labeling(changed, progress=NOTHING_SAID).labeled_now == 0


def test_changed_manifest_on_the_same_folder_is_refused(finished, clips):
    manifest = Path(finished.manifest.path)
    unchanged = manifest.read_bytes()
    save_manifest(manifest, clips)
    try:
        with pytest.raises(RunMismatchError, match="manifest"):
            run_labeling(finished, progress=NOTHING_SAID)
    finally:
        manifest.write_bytes(unchanged)


def test_changed_weights_on_the_same_folder_are_refused(finished, make_config, models, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(models.videomae, copy)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    member = {"name": "vm", "family": "videomae", "checkpoint": str(copy), "sampling": {"rule": "uniform"}}
    other = make_config(finished.manifest.path, run=str(tmp_path / "run2"), members=[member])
    run_labeling(other, progress=NOTHING_SAID)
    weights.write_bytes(data)
    with pytest.raises(RunMismatchError, match="weights_sha256"):
        run_labeling(other, progress=NOTHING_SAID)


def test_table_reads_in_one_line_with_pandas_duckdb_and_polars(finished):
    folder = f"{finished.run.path}/predictions"
    with_pandas = pd.read_parquet(folder)
    with_duckdb = duckdb.sql(f"select clip_id, label, score from '{folder}/*.parquet' order by clip_id").df()
    with_polars = pl.read_parquet(f"{folder}/*.parquet").sort("clip_id")
    assert with_pandas["label"].tolist() == with_duckdb["label"].tolist()
    assert with_polars["clip_id"].to_list() == with_pandas["clip_id"].tolist()
    assert with_polars["topk_scores"].to_list()[0] == pytest.approx(with_pandas["topk_scores"][0].tolist())


def test_every_file_has_the_same_schema_and_carries_the_provenance(finished):
    run = Path(finished.run.path)
    files = sorted((run / "predictions").iterdir())
    schemas = [pq.read_schema(f) for f in files]
    assert len(files) == 3
    assert all(s.equals(schemas[0]) for s in schemas)
    footer = json.loads(pq.read_metadata(files[0]).metadata[b"vidcls_batch"])
    record = json.loads((run / "run.json").read_text())
    for where in (footer, record):
        assert where["config"]["ensemble"]["top_k"] == 3
        provenance = where["provenance"]
        assert len(provenance["label_set"]["digest"]) == 64
        assert provenance["decoder"]["name"] == "pyav"
        assert [len(m["weights_sha256"]) for m in provenance["members"]] == [64, 64]


def test_retry_rewrites_only_the_failed_rows(finished, clips):
    run = Path(finished.run.path)
    before = predictions(run)
    files = file_bytes(run)
    missing = clips[0].parent / "not-there.mp4"
    shutil.copy(clips[3], missing)
    try:
        outcome = retry_failed(
            str(run), statuses=["fetch_error"], options=StorageOptions(), overrides=(), progress=NOTHING_SAID
        )
    finally:
        missing.unlink()
    after = predictions(run)
    assert outcome.statuses == {"ok": len(before)}
    assert after.loc["c0012", "status"] == "ok"
    assert after.loc["c0012", "attempts"] == 2
    assert after.loc["c0012", "label"] == after.loc["c0003", "label"]
    pd.testing.assert_frame_equal(after.drop("c0012"), before.drop("c0012"), check_dtype=False)
    assert file_bytes(run)["unit-000000.parquet"] == files["unit-000000.parquet"]


def test_retry_refuses_a_status_that_is_none(finished):
    with pytest.raises(ConfigError, match="timeout"):
        retry_failed(
            finished.run.path, statuses=["timeoutt"], options=StorageOptions(), overrides=(), progress=NOTHING_SAID
        )


def test_wrong_manifest_is_refused_before_anything_starts(make_config, write_manifest, clips):
    config = make_config(write_manifest(clips, label=["x"] * len(clips)))
    with pytest.raises(ManifestError, match="label"):
        run_labeling(config, progress=NOTHING_SAID)
    assert not Path(config.run.path).exists()


def test_label_set_that_is_not_the_members_is_refused_before_anything_starts(make_config, write_manifest, clips):
    config = make_config(write_manifest(clips), label_set=["walking", "running"])
    with pytest.raises(ConfigError, match="Only in the label set"):
        run_labeling(config, progress=NOTHING_SAID)


def test_run_that_only_fails_stops_and_goes_on_once_told(make_config, write_manifest, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(failure_brake, "LEAST_CLIPS", 8)
    config = make_config(write_manifest([tmp_path / f"gone{i}.mp4" for i in range(12)]))
    with pytest.raises(IncompleteRunError, match=r"clips failed.*fetch_error/not_found"):
        run_labeling(config, progress=NOTHING_SAID)
    assert not (Path(config.run.path) / "_SUCCESS").exists()
    all_may_fail = config.model_copy(update={"run": config.run.model_copy(update={"max_failed_share": 1.0})})
    assert run_labeling(all_may_fail, progress=NOTHING_SAID).statuses == {"fetch_error": 12}


def test_evidence_columns_hold_logits_when_asked(make_config, write_manifest, clips):
    config = make_config(write_manifest(clips[:3]), output={"unit_clips": 5, "member_logits": True})
    run_labeling(config, progress=NOTHING_SAID)
    table = predictions(Path(config.run.path))
    logits = np.stack(table["vm_logits"].to_numpy())
    assert logits.dtype == np.float16
    assert logits.shape == (3, 3)
    exponentials = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    assert (exponentials / exponentials.sum(axis=1, keepdims=True)).max(axis=1) == pytest.approx(
        table["vm_score"].to_numpy(), abs=0.02
    )


def test_time_ranges_of_one_file_are_clips_of_their_own(make_config, write_manifest, clips):
    manifest = write_manifest([clips[0]] * 2, start_s=[0.0, 0.5], end_s=[0.5, None])
    config = make_config(manifest)
    run_labeling(config, progress=NOTHING_SAID)
    table = predictions(Path(config.run.path))
    assert set(table["status"]) == {Status.OK}
    assert max(table.loc["c0000", "frame_pts_s"]) < 0.5 <= min(table.loc["c0001", "frame_pts_s"])
