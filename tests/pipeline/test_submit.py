"""`vidcls submit` against a Ray head that `ray start` made: logs, exit statuses, stop, resume, and what travels."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray_head import RayHead, ray_head
from slow_run import NUM_CLIPS, assert_exactly_the_manifest, committed, wait_for

from tests.s3 import CREDENTIALS
from vidcls_batch.config import Config, resolved
from vidcls_batch.errors import ConfigError
from vidcls_batch.submission import job_environment, pack

HERE = Path(__file__).parent
SECRET = "hush-hush-4711"


@pytest.fixture(scope="module")
def head():
    environment = CREDENTIALS | {"AWS_SECRET_ACCESS_KEY": SECRET, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    with ray_head(num_cpus=5, environment=environment) as running:
        yield running


def submitting(config: Config, head: RayHead, folder: Path, *options: str) -> subprocess.Popen[str]:
    path = folder / "submit.yaml"
    path.write_text(yaml.safe_dump(resolved(config)))
    command = [sys.executable, "-m", "vidcls_batch", "submit", str(path), "--address", head.job_address, *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def allowed(config: Config, folder: Path) -> Config:
    """The same run, on a cluster whose machines have the clips on their disks."""
    manifest = config.manifest.model_copy(update={"allow": (str(folder),)})
    return config.model_copy(update={"manifest": manifest})


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_submitted_run_is_followed_stopped_and_resumed(head, slow_config, tmp_path):
    config = allowed(slow_config, tmp_path)
    first = submitting(config, head, tmp_path)
    wait_for(lambda: committed(config) or first.poll() is not None, timeout_s=150)
    assert first.poll() is None, first.stdout.read()

    second = submitting(config, head, tmp_path, "--no-follow", "--json")
    joined = json.loads(second.communicate(timeout=60)[0].partition("{")[2].join(["{", ""]))
    assert joined["status"] == "RUNNING"  # no second driver: it found the first

    stopping = submitting(config, head, tmp_path, "--stop")
    assert stopping.wait(90) == 0, stopping.stdout.read()
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 130, said
    assert "clips in 12 units" in said  # the job's own lines
    before = committed(config)
    assert 0 < len(before) < 12

    again = submitting(config, head, tmp_path)
    said = again.communicate(timeout=150)[0]
    assert again.returncode == 0, said
    assert f"Done: {NUM_CLIPS} clips" in said
    assert {name: committed(config)[name] for name in before} == before
    assert_exactly_the_manifest(config)
    for file in Path(config.run.path).rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_exit_status_of_the_run_is_that_of_the_submit_and_credentials_stay_at_home(
    head, make_config, write_manifest, clips, tmp_path
):
    config = make_config(write_manifest([*clips, clips[0]], clip_id=["same"] * (len(clips) + 1)))
    failing = submitting(allowed(config, tmp_path), head, tmp_path)
    said = failing.communicate(timeout=120)[0]
    assert failing.returncode == 2, said
    assert "Error: " in said
    refused = submitting(config, head, tmp_path, "--env", "AWS_SECRET_ACCESS_KEY=x")
    said = refused.communicate(timeout=60)[0]
    assert refused.returncode == 2
    assert "looks like a credential" in said


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_clips_on_the_workers_own_disks_need_leave(head, make_config, write_manifest, clips, tmp_path):
    refused = submitting(make_config(write_manifest(clips)), head, tmp_path)
    said = refused.communicate(timeout=120)[0]
    assert refused.returncode == 2, said
    assert "manifest.allow" in said


def test_no_job_server_is_exit_7(make_config, write_manifest, clips, tmp_path):
    config = make_config(write_manifest(clips))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(resolved(config)))
    command = [sys.executable, "-m", "vidcls_batch", "submit", str(path), "--address", "http://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 7, done.stderr
    assert "no Ray job server at http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_travels_is_code_and_small_files_by_stable_names(make_config, write_manifest, clips, tmp_path):
    labels = tmp_path / "my labels.txt"
    labels.write_text("a\nb\n")
    config = make_config(write_manifest(clips), label_set={"file": str(labels)})
    folder = tmp_path / "packed"
    folder.mkdir()
    said: list[str] = []
    num_bytes = pack(config, folder=folder, say=said.append)
    assert num_bytes < 5e6
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    assert tree["label_set"]["file"] == "files/label_set.txt"
    assert (folder / "files" / "label_set.txt").read_text() == "a\nb\n"
    assert (folder / "vidcls_batch" / "cli.py").exists()
    assert not [p for p in folder.rglob("*") if p.suffix in (".mp4", ".parquet", ".pyc", ".safetensors")]
    assert any("does not travel" in line for line in said)


def test_too_much_to_travel_is_refused(make_config, write_manifest, clips, tmp_path, monkeypatch):
    monkeypatch.setattr("vidcls_batch.submission.MOST_BYTES", 1 << 10)
    folder = tmp_path / "packed"
    folder.mkdir()
    with pytest.raises(ConfigError, match="would travel"):
        pack(make_config(write_manifest(clips)), folder=folder, say=lambda _: None)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD", "API_KEY"])
def test_credentials_are_refused_before_the_cluster_is_asked(name):
    with pytest.raises(ConfigError, match="credential"):
        job_environment({name: "x"})
