"""`vidcls plan` on generated clips: what it finds, that it is the same each time, that it leaves the plan alone."""

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from vidcls_batch.cli import app
from vidcls_batch.config import Config, resolved
from vidcls_batch.planning import plan_run
from vidcls_batch.preflight.memory import largest_peak_of_children, resident_bytes, total_bytes
from vidcls_batch.preflight.probe import probe_clips
from vidcls_batch.preflight.sample import sample_clips
from vidcls_batch.progress import SilentProgress


def call(config: Config, folder: Path, *arguments: object) -> tuple[int, dict]:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(resolved(config)))
    result = CliRunner().invoke(app, ["plan", str(path), "--json", "--seconds", "2", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    decoder = json.JSONDecoder()
    return result.exit_code, decoder.raw_decode(result.stdout[result.stdout.index("{") :])[0]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_plan_says_what_the_run_will_take(config_over, good_clips, tmp_path):
    prices = Path(__file__).parents[2] / "configs/prices/example.yaml"
    code, facts = call(config_over(good_clips * 4), tmp_path, "--sample", 5, "--prices", prices)
    found = facts["preflight"]
    assert code == 0
    assert (facts["num_clips"], found["clips_to_label"]) == (24, 24)
    assert found["sample"]["clips"] == 5
    assert found["sample"]["statuses"] == {"ok": 5}
    assert found["sample"]["codecs"] == {"h264": 5}
    assert found["sample"]["sizes"] == {"64x48": 5}
    assert found["sample"]["durations_s"] == pytest.approx([1.0] * 5, abs=0.11)
    seconds = found["seconds_per_clip"]
    assert 0.0005 < seconds["decode_s"] < 1
    assert seconds["vm"] > 0
    assert found["hours_on_this_machine"] == pytest.approx(24 / found["clips_per_s_on_this_machine"] / 3600)
    assert found["limited_by"] in ("decode", "inference", "fetch")
    needs = found["needs"]
    assert needs["decode_worker_bytes"] > 220 << 20  # a worker's own, blocks, and a decoder child that was seen alive
    assert needs["classify_worker_bytes"] > 100 << 20
    assert 100 < needs["row_bytes"] < 5000
    assert needs["get_requests"] >= 24
    assert len(found["cost"]["machines"]) == 3
    assert not (tmp_path / "run" / "predictions").exists()


def test_stored_evidence_is_counted_per_clip(config_over, good_clips, tmp_path):
    plain = call(config_over(good_clips), tmp_path, "--sample", 2)[1]["preflight"]["needs"]
    kept = config_over(good_clips, run=str(tmp_path / "other"), output={"unit_clips": 4, "member_logits": True})
    with_logits = call(kept, tmp_path, "--sample", 2)[1]["preflight"]["needs"]
    assert plain["evidence_bytes"] == 0
    assert with_logits["evidence_bytes"] == 6 * 3 * 2  # clips, labels, bytes of a float16
    assert with_logits["row_bytes"] > plain["row_bytes"]


def test_check_passes_a_good_run_and_leaves_no_trace(config_over, good_clips, tmp_path):
    code, facts = call(config_over(good_clips), tmp_path, "--check", "--sample", 3)
    assert code == 0
    assert facts["run_uri"] == str(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_check_exits_8_when_too_many_sampled_clips_fail(config_over, good_clips, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    config = config_over([*good_clips[:3], bad, tmp_path / "missing.mp4"])
    code, facts = call(config, tmp_path, "--check", "--sample", 5)
    assert code == 8
    (finding,) = facts["preflight"]["findings"]
    assert finding["code"] == "sample_failures"
    assert "2 of 5" in finding["message"]
    code, _ = call(config, tmp_path, "--check", "--sample", 5, "--max-failures", 0.5)
    assert code == 0


def test_check_exits_8_when_a_block_would_outrun_the_object_store(config_over, good_clips, tmp_path):
    config = config_over(good_clips, decode={"short_side": 1080}, resources={"batch_size": 16})
    code, facts = call(config, tmp_path, "--check", "--sample", 1)
    assert code == 8
    assert "block_too_large" in {f["code"] for f in facts["preflight"]["findings"]}


@pytest.mark.parametrize(
    "changes", [{"manifest": "nowhere.csv"}, {"members": [{"name": "a", "family": "videomae", "checkpoint": "./no"}]}]
)
def test_check_exits_2_for_a_manifest_or_checkpoint_that_is_not_there(config_over, good_clips, tmp_path, changes):
    code, facts = call(config_over(good_clips, **changes), tmp_path, "--check")
    assert (code, facts["exit_code"]) == (2, 2)


def test_check_exits_4_when_the_folder_belongs_to_another_config(config_over, good_clips, tmp_path):
    assert call(config_over(good_clips), tmp_path, "--sample", 0)[0] == 0
    other = config_over(good_clips, ensemble={"top_k": 2})
    before = files_in(tmp_path / "run")
    assert call(other, tmp_path, "--check", "--sample", 0)[0] == 4
    assert files_in(tmp_path / "run") == before


def test_a_second_plan_changes_nothing_of_the_frozen_one(config_over, good_clips, tmp_path):
    config = config_over(good_clips)
    call(config, tmp_path, "--sample", 0)
    before = files_in(tmp_path / "run")
    code, facts = call(config, tmp_path, "--sample", 4, "--seed", 3)
    assert (code, facts["preflight"]["sample"]["clips"]) == (0, 4)
    assert files_in(tmp_path / "run") == before


def test_the_sample_is_the_same_for_the_same_seed_and_reaches_every_clip(config_over, good_clips):
    planned = plan_run(config_over(good_clips * 3), progress=SilentProgress())
    # A fingerprint goes with the run's path, another each time: one in 200 of them would fail the last line.
    plan = replace(planned.plan, fingerprint="of this test")

    def drawn(seed: int, size: int = 6) -> list[str]:
        clips = sample_clips(plan, store=planned.store, units=planned.pending, num_clips=size, seed=seed)
        return clips["clip_id"].to_pylist()

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert sorted(drawn(1, 100)) == [f"c{i:03d}" for i in range(18)]
    seen = Counter(clip for seed in range(60) for clip in drawn(seed))
    assert len(seen) == 18
    assert max(seen.values()) < 3.5 * min(seen.values())


def test_only_clips_without_a_row_are_sampled(config_over, good_clips):
    planned = plan_run(config_over(good_clips * 2), progress=SilentProgress())
    clips = sample_clips(planned.plan, store=planned.store, units=[2], num_clips=10, seed=0)
    assert sorted(clips["clip_id"].to_pylist()) == [f"c{i:03d}" for i in range(8, 12)]


def test_probing_ends_when_its_time_is_up(config_over, good_clips):
    planned = plan_run(config_over(good_clips), progress=SilentProgress())
    clips = sample_clips(planned.plan, store=planned.store, units=planned.pending, num_clips=6, seed=0)
    minutes = iter(range(0, 6000, 60))
    probe = probe_clips(
        clips, settings=planned.spec.decode_settings(), seconds=150, keep=1, clock=lambda: float(next(minutes))
    )
    assert probe.num_clips == 1
    assert len(probe.blocks) == 1


def test_a_store_that_does_not_answer_costs_seconds_not_minutes(config_over, tmp_path):
    uri = "http://127.0.0.1:9/clip.mp4"
    planned = plan_run(config_over([uri]), progress=SilentProgress())
    clips = sample_clips(planned.plan, store=planned.store, units=planned.pending, num_clips=1, seed=0)
    started = time.monotonic()
    probe = probe_clips(clips, settings=planned.spec.decode_settings(), seconds=10, keep=1)
    assert time.monotonic() - started < 40
    assert probe.statuses == {"fetch_error": 1}
    assert probe.decode_s == ()


def test_memory_readings_are_of_this_machine():
    assert 10 << 20 < resident_bytes() < total_bytes()
    assert resident_bytes(pid=2**22 + 1) == 0
    assert largest_peak_of_children() >= 0


def test_the_text_names_time_ratio_memory_output_requests_and_cost(config_over, good_clips, tmp_path):
    prices = Path(__file__).parents[2] / "configs/prices/example.yaml"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(resolved(config_over([*good_clips, tmp_path / "gone.mp4"]))))
    result = CliRunner().invoke(app, ["plan", str(path), "--seconds", "2", "--prices", str(prices)])
    text = result.stdout
    assert result.exit_code == 0
    for word in ("h264 6", "limited by", "CPU:GPU", "object store", "bytes a row", "GET", "16 vCPUs spot", "gone.mp4"):
        assert word in text


def test_plan_shows_the_groups_and_what_each_takes(config_over, good_clips, checkpoint, tmp_path):
    member = {"family": "videomae", "checkpoint": str(checkpoint), "sampling": {"rule": "uniform"}}
    members = [{**member, "name": name} for name in "abc"]
    resources = {"batch_size": 4, "num_cpus": 2, "groups": [["a", "c"], {"members": ["b"], "actors": 2}]}
    config = config_over(good_clips, members=members, resources={**resources, "device_memory_mb": 100_000})
    code, facts = call(config, tmp_path, "--sample", 2)
    assert (code, facts["groups"]) == (0, [["a", "c"], ["b"]])
    pools = facts["preflight"]["groups"]
    assert [(pool["members"], pool["actors"]) for pool in pools][1] == (["b"], 2)
    assert facts["preflight"]["findings"] == []
    text = CliRunner().invoke(app, ["plan", str(tmp_path / "config.yaml"), "--sample", "2", "--seconds", "1"]).output
    assert "a, b, c; in 2 groups: a + c; b" in text
    assert "group 1   a + c (" in text
    assert "2 classifiers" in text
