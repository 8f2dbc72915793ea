import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from vidcls_batch.cli import app
from vidcls_batch.config import Config, resolved

COMMANDS = ["manifest", "plan", "run", "status", "verify", "retry", "peek", "models", "config-schema"]


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def save(config: Config, folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(resolved(config)))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_one_real_example(command):
    code, text = call(command, "--help")
    assert code == 0
    assert f"Example: vidcls {command}" in " ".join(text.split())


def test_status_of_a_finished_run(finished):
    code, text = call("status", finished.run.path, "--json")
    facts = json.loads(text)
    assert code == 0
    assert (facts["num_clips"], facts["committed_clips"], facts["finished"]) == (13, 13, True)
    assert facts["statuses"] == {"ok": 12, "fetch_error": 1}
    code, text = call("status", finished.run.path)
    assert "13 of 13" in text


def test_status_of_an_unfinished_run_counts_what_is_there(finished):
    run = Path(finished.run.path)
    (run / "_SUCCESS").unlink()
    (run / "predictions" / "unit-000000.parquet").unlink()
    code, text = call("status", run, "--json")
    facts = json.loads(text)
    assert code == 0
    assert (facts["committed_clips"], facts["committed_units"], facts["finished"]) == (8, 2, False)


def test_verify_proves_a_finished_run_and_exits_5_on_a_lost_unit(finished):
    run = Path(finished.run.path)
    code, text = call("verify", run)
    assert (code, "13 planned clips" in text) == (0, True)
    (run / "predictions" / "unit-000002.parquet").unlink()
    code, text = call("verify", run, "--json")
    assert code == 5
    assert json.loads(text)["ok"] is False


def test_verify_of_a_folder_that_is_no_run_is_an_error(tmp_path):
    code, text = call("verify", tmp_path)
    assert code == 6
    assert str(tmp_path) in text


def test_run_refuses_a_changed_config_with_status_4(finished, tmp_path):
    path = save(finished, tmp_path)
    code, text = call("run", path, "--set", "ensemble.top_k=1")
    assert code == 4
    assert "ensemble.top_k: 3 → 1" in text


def test_run_of_a_finished_run_says_so(finished, tmp_path):
    code, text = call("run", save(finished, tmp_path))
    assert code == 0
    assert "nothing to do" in text


def test_wrong_config_exits_2_and_json_carries_the_message(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("run: out\n")
    code, text = call("plan", path, "--json")
    assert code == 2
    assert json.loads(text.splitlines()[0])["exit_code"] == 2


def test_plan_labels_nothing_and_says_what_will_be_done(make_config, write_manifest, clips, tmp_path):
    config = make_config(write_manifest(clips))
    code, text = call("plan", save(config, tmp_path), "--json")
    facts = json.loads(text[text.index("{") :])
    assert code == 0
    assert (facts["num_clips"], facts["num_units"], facts["pending_units"]) == (12, 3, 3)
    assert facts["members"] == ["vm", "ts"]
    assert not (Path(config.run.path) / "predictions").exists()


def test_manifest_lists_videos_and_feeds_a_plan(make_config, clips, tmp_path):
    code, _ = call("manifest", clips[0].parent, "-o", tmp_path / "list.csv")
    assert code == 0
    code, text = call("plan", save(make_config(tmp_path / "list.csv"), tmp_path), "--json")
    assert json.loads(text[text.index("{") :])["num_clips"] == len(clips)


def test_manifest_of_a_folder_without_videos_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    code, text = call("manifest", tmp_path / "empty", "-o", tmp_path / "list.csv")
    assert code == 2
    assert "empty" in text


def test_peek_shows_scores_and_writes_the_frames(make_config, clips, tmp_path):
    path = save(make_config("unused.csv"), tmp_path)
    sheet = tmp_path / "frames.png"
    code, text = call("peek", clips[0], "--config", path, "--sheet", sheet)
    assert code == 0
    assert "label" in text
    assert "vm" in text
    assert sheet.read_bytes().startswith(b"\x89PNG")
    code, text = call("peek", clips[0], "--config", path, "--json")
    assert json.loads(text)["status"] == "ok"


def test_peek_at_a_file_that_is_no_video_says_why_and_exits_1(make_config, tmp_path):
    path = save(make_config("unused.csv"), tmp_path)
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    code, text = call("peek", tmp_path / "bad.mp4", "--config", path)
    assert code == 1
    assert "decode_error" in text


def test_models_lists_families_with_their_accuracy():
    code, text = call("models", "--json")
    families = {f["family"]: f for f in json.loads(text)}
    assert code == 0
    assert {"videomae", "timesformer", "xclip"} <= families.keys()
    assert families["videomae"]["models"][0]["k400_top1"] > 80
    code, text = call("models")
    assert "videomae" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "as exported" in rows["onnx"]
    assert "CUDA device" in rows["tensorrt"] or "pip install" in rows["tensorrt"]
