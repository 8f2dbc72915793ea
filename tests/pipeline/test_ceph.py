"""On a real S3 server: everything of a run on one bucket, keys that do not fit, and races that one driver wins."""

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from ceph_runs import filesystem, prediction_files, predictions, upload_dataset
from s3fs import S3FileSystem

from vidcls_batch.dataset.commit import committed_units
from vidcls_batch.dataset.plan import load_plan
from vidcls_batch.errors import StorageError
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.planning import plan_run
from vidcls_batch.progress import SilentProgress
from vidcls_batch.storage import StorageOptions, open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
QUIET = SilentProgress()
RACER = Path(__file__).with_name("commit_racer.py")


def on_bucket(bucket, run: str = "run") -> dict:
    return {"path": f"{bucket.uri}/{run}", "endpoint_url": bucket.endpoint_url, "canary_clips": 2}


def test_manifest_videos_checkpoint_and_run_on_one_bucket(ceph_bucket, make_config, models, clips, ray_session):
    fs = filesystem(ceph_bucket.endpoint_url)
    manifest = upload_dataset(fs, clips, bucket=ceph_bucket.bucket)
    fs.put(str(models.videomae), f"{ceph_bucket.bucket}/models/", recursive=True)
    member = {"name": "vm", "family": "videomae", "sampling": {"rule": "uniform"}}
    member["checkpoint"] = f"{ceph_bucket.uri}/models/{models.videomae.name}"
    config = make_config(manifest, run=on_bucket(ceph_bucket), members=[member])

    outcome = run_labeling(config, progress=QUIET)

    assert outcome.statuses == {"ok": len(clips)}
    run = f"{ceph_bucket.bucket}/run"
    table = predictions(fs, run)
    assert table["clip_id"].tolist() == [f"c{i:04d}" for i in range(len(clips))]
    assert fs.exists(f"{run}/_SUCCESS")
    secret = b"AWS_SECRET"
    assert secret not in fs.cat_file(f"{run}/run.json")
    before = prediction_files(fs, run)
    assert run_labeling(config, progress=QUIET).labeled_now == 0
    assert prediction_files(fs, run) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret key is wrong for this access key"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "does not know this access key"),
    ],
)
def test_wrong_keys_are_named_before_anything_starts(
    ceph_bucket, make_config, write_manifest, clips, monkeypatch, change, says
):
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=says):
        plan_run(make_config(write_manifest(clips), run=on_bucket(ceph_bucket)), progress=QUIET)


def test_missing_bucket_is_named(ceph_bucket, make_config, write_manifest, clips):
    run = on_bucket(ceph_bucket) | {"path": "s3://no-such-bucket/run"}
    with pytest.raises(StorageError, match="the bucket does not exist at this endpoint"):
        plan_run(make_config(write_manifest(clips), run=run), progress=QUIET)


def test_key_that_may_only_read_fails_before_anything_starts_and_leaves_nothing(
    ceph, ceph_bucket, make_config, write_manifest, clips, monkeypatch
):
    name = ceph_bucket.bucket
    ceph.add_user(f"reader-{name}", access_key=f"reader-{name}", secret_key="read")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": [f"arn:aws:iam:::user/reader-{name}"]},
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
            }
        ],
    }
    boto3.client("s3", endpoint_url=ceph_bucket.endpoint_url).put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"reader-{name}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "read")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=r"Cannot write s3://.*permission denied"):
        plan_run(make_config(write_manifest(clips), run=on_bucket(ceph_bucket)), progress=QUIET)
    assert filesystem(ceph_bucket.endpoint_url).ls(name) == []


def test_of_sixteen_writers_exactly_one_creates_the_object(ceph_bucket):
    store = open_store(f"{ceph_bucket.uri}/race", options=StorageOptions(endpoint_url=ceph_bucket.endpoint_url))
    with ThreadPoolExecutor(16) as pool:
        for round_ in range(10):
            bodies = [f"{round_} {writer}".encode() for writer in range(16)]
            won = list(pool.map(lambda body, name=f"o{round_}": store.put_if_absent(name, body), bodies))
            assert won.count(True) == 1
            assert store.read_bytes(f"o{round_}") == bodies[won.index(True)]


def test_of_four_racing_drivers_exactly_one_commits_each_unit(ceph_bucket, make_config, write_manifest, clips):
    config = make_config(write_manifest(clips * 10), run=on_bucket(ceph_bucket), output={"unit_clips": 3})
    plan_run(config, progress=QUIET)
    racers = [
        subprocess.Popen(
            [sys.executable, str(RACER), config.run.path, ceph_bucket.endpoint_url, f"driver{i}"],
            stdout=subprocess.PIPE,
        )
        for i in range(4)
    ]
    outcomes = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
    store = open_store(config.run.path, options=StorageOptions(endpoint_url=ceph_bucket.endpoint_url))
    plan = load_plan(store)
    every = set(range(plan.num_units))
    assert committed_units(store, plan) == every
    assert Counter(unit for o in outcomes for unit in o["ours"]) == Counter(every)
    assert all({*o["ours"], *o["theirs"]} == every for o in outcomes)
