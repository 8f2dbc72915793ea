"""A store behind a bad network: whatever it does, each clip has its row and none is blamed for the store's faults."""

from dataclasses import replace
from threading import Timer

import pytest
from ceph_runs import filesystem, predictions, upload_dataset

from infra.testing.fault_proxy import Fault, FaultProxy
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.progress import SilentProgress
from vidcls_batch.storage import StorageOptions, open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
QUIET = SilentProgress()
CLIP = r"GET /\S+/clips/"
COMMIT = r"PUT /\S+/predictions/unit-"
SLOW_DOWN, SLOW_DOWN_S = "slow-down-for-a-minute", 60.0
FAULTS = {
    "latency": [Fault("latency", CLIP, seconds=0.5)],
    "resets": [Fault("reset", CLIP, times=15), Fault("reset", COMMIT, times=2)],
    "errors": [Fault("internal_error", CLIP, times=10), Fault("slow_down", COMMIT, times=3)],
    SLOW_DOWN: [Fault("slow_down", CLIP), Fault("slow_down", COMMIT)],
    "truncated-bodies": [Fault("truncate", CLIP, times=10, num_bytes=700)],
    "stalls": [Fault("stall", CLIP, times=3, num_bytes=700, seconds=60)],
    "lost-commit-replies": [Fault("lost_reply", COMMIT, times=3)],
}


@pytest.fixture
def proxy(ceph):
    with FaultProxy(upstream_port=ceph.port) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
def test_no_row_is_lost_or_doubled_and_no_clip_is_blamed(name, ceph_bucket, proxy, make_config, clips, ray_session):
    fs = filesystem(ceph_bucket.endpoint_url)
    config = make_config(
        upload_dataset(fs, clips, bucket=ceph_bucket.bucket),
        run={"path": f"{ceph_bucket.uri}/run", "endpoint_url": proxy.endpoint_url, "canary_clips": 1},
        decode={"fetch_timeout_s": 4.0},
    )
    proxy.faults = [replace(fault) for fault in FAULTS[name]]
    timer = Timer(SLOW_DOWN_S, proxy.faults.clear)
    timer.start()

    outcome = run_labeling(config, progress=QUIET)

    timer.cancel()

    assert outcome.statuses == {"ok": len(clips)}
    assert name != SLOW_DOWN or outcome.seconds > SLOW_DOWN_S
    table = predictions(fs, f"{ceph_bucket.bucket}/run")
    assert table["clip_id"].tolist() == [f"c{i:04d}" for i in range(len(clips))]
    assert proxy.hits.total() >= sum(fault.times or 1 for fault in FAULTS[name])


def test_commit_whose_reply_is_lost_is_known_as_ones_own(ceph_bucket, proxy):
    store = open_store(f"{ceph_bucket.uri}/run", options=StorageOptions(endpoint_url=proxy.endpoint_url))
    proxy.faults = [Fault("lost_reply", "PUT", times=1)]
    assert store.put_if_absent("a", b"mine")
    assert not store.put_if_absent("a", b"theirs")
    assert proxy.hits["lost_reply"] == 1
    assert store.read_bytes("a") == b"mine"
