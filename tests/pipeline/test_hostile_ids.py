"""Clip ids that look like paths, commands or markup come back as they are, and no file is named by them."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner
from worker_faults import BACKEND, with_fault

from vidcls_batch.cli import app
from vidcls_batch.config import resolved
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.peek import peek_at
from vidcls_batch.progress import SilentProgress

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]
IDS = [
    "line\nbreak\r\u2028end \x1b[2J\x1b]0;title\x07",
    "../../x",
    "/etc/passwd",
    "..",
    "%2e%2e%2fx",
    "a\x00b",
    "x" * 10_000,
    "<script>alert(1)</script>",
    "$(touch pwned); `touch pwned`",
    "unit=1/part",
    "C:\\x\\..\\y",
]
KINDS = {".parquet", ".json", ".jsonl", ".png", ""}  # of files; none that a browser would run


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_hostile_ids_come_back_verbatim_and_name_no_file(make_config, clips, tmp_path, monkeypatch):
    videos = tmp_path / "videos"
    videos.mkdir()
    late = [videos / f"late{i}.mp4" for i in range(3)]  # the first kills its decoder, others are missing: for retry
    late[0].write_bytes(with_fault(clips[0].read_bytes(), "segfault"))
    uris = [*late, *clips[: len(IDS) - len(late)]]
    manifest = tmp_path / "manifest.parquet"
    pd.DataFrame({"clip_id": IDS, "uri": [str(u) for u in uris], "note": [f"{i}!" for i in IDS]}).to_parquet(manifest)
    config = make_config(manifest, decode={"backend": BACKEND})
    config_file = tmp_path / "config.yaml"
    config_file.write_text(yaml.safe_dump(resolved(config)))
    elsewhere = tmp_path / "deep" / "in" / "here"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    run = Path(config.run.path)

    run_labeling(config, progress=SilentProgress())
    for path, clip in zip(late, clips, strict=False):
        path.write_bytes(clip.read_bytes())
    before = files_below(tmp_path)
    call("retry", run, "--status", "fetch_error,crashed")
    for command in ("status", "verify"):
        call(command, run)
    told = call("events", run)
    call("plan", config_file, "--sample", "4", "--seconds", "1")
    sheet = tmp_path / "deep" / "sheet.png"
    peek_at(str(clips[0]), config=config, sheet=sheet)

    table = pd.read_parquet(run / "predictions")
    assert table["clip_id"].tolist() == IDS
    assert table["note"].tolist() == [f"{i}!" for i in IDS]
    assert set(table["status"]) == {"ok"}
    after = files_below(tmp_path)
    new = {path for path in after if after[path] != before.get(path)}
    assert {path for path in new if path.parts[0] != "run"} == {sheet.relative_to(tmp_path)}
    names = {path.name for path in after if path.parts[0] == "run"}
    assert all(name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum() for name in names)
    assert {path.suffix for path in after if path.parts[0] == "run"} <= KINDS
    assert not any(c in told for c in "\x1b\x07\x00\u2028")
    events = [json.loads(line) for line in (run / "events.jsonl").read_bytes().splitlines()]
    assert {e["clip_id"] for e in events if e["event"] == "decoder_died"} == {IDS[0]}
