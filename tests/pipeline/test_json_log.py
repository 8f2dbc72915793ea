"""`--log-format json`: all that a run says is JSON, with its run, and with the unit and clip ids it is about."""

import json

import pytest
import yaml
from typer.testing import CliRunner
from worker_faults import BACKEND, with_fault

from vidcls_batch.cli import app
from vidcls_batch.config import resolved

pytestmark = pytest.mark.usefixtures("ray_session")


def test_run_tells_in_json_lines_what_happened_to_which_clip_of_which_unit(
    make_config, write_manifest, clips, tmp_path, monkeypatch
):
    bad = tmp_path / "segfault.mp4"
    bad.write_bytes(with_fault(clips[0].read_bytes(), "segfault"))
    config = make_config(write_manifest([*clips[:6], bad]), decode={"backend": BACKEND})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(resolved(config)))
    monkeypatch.setenv("VIDCLS_LOG_FORMAT", "json")

    result = CliRunner().invoke(app, ["run", str(path)])

    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert {line["run"] for line in lines} == {config.run.path}
    by_event = {line["event"]: line for line in lines}
    assert {"message", "driver_started", "unit_committed", "progress", "clips_through"} <= set(by_event)
    assert {line["unit"] for line in lines if line["event"] == "unit_committed"} == {0, 1}
    assert by_event["decoder_died"]["clip_id"] == "c0006"
    assert by_event["progress"]["statuses"] == {"ok": 6, "crashed": 1}


def test_error_is_a_json_line_with_its_exit_status(finished, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(resolved(finished)))
    result = CliRunner().invoke(app, ["run", str(path), "--set", "ensemble.top_k=1", "--log-format", "json"])
    assert result.exit_code == 4
    last = json.loads(result.stderr.splitlines()[-1])
    assert (last["event"], last["error"], last["exit_code"]) == ("error", "RunMismatchError", 4)
    assert last["run"] == finished.run.path
