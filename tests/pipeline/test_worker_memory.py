"""A clip that costs its decode worker all the node's memory: Ray kills the worker, and only that clip is blamed."""

from pathlib import Path

import pandas as pd
import pytest
from memory_cgroup import memory_cgroup
from ray_head import AUTH_MODE, ray_head
from ray_node import ray_node
from slow_run import events, on_cluster

from tests.s3 import CREDENTIALS

HERE = Path(__file__).parent
NODE_BYTES = 3 << 30
# Of the node's memory 60 % may be used; two decode workers and Ray itself need about a third of that.
MONITOR = {"RAY_memory_usage_threshold": "0.6", "RAY_memory_monitor_refresh_ms": "100"}
HUGE_BYTES = 1_900_000_000
GUILTY = 7


def write_huge(path: Path, clip: bytes) -> None:
    """The clip with a `free` box of zeros behind it: nothing on the disk, all of it in its worker's memory."""
    with path.open("wb") as file:
        file.write(clip + HUGE_BYTES.to_bytes(4, "big") + b"free")
        file.truncate(len(clip) + HUGE_BYTES)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_worker_killed_for_its_memory_costs_only_the_clip_that_ate_it(
    make_config, write_manifest, clips, start, tmp_path
):
    uris = [tmp_path / f"{i}.mp4" for i in range(20)]
    for i, path in enumerate(uris):
        path.write_bytes(clips[i % len(clips)].read_bytes())
    write_huge(uris[GUILTY], clips[0].read_bytes())
    environment = CREDENTIALS | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    labels = {"decode_labels": {"pool": "small"}, "classify_labels": {"pool": "large"}}
    with (
        memory_cgroup(NODE_BYTES) as within,
        ray_head(num_cpus=2, environment=environment, arguments=["--labels=pool=large"]) as head,
        ray_node(head, num_cpus=2, environment=environment | MONITOR, within=within, arguments=["--labels=pool=small"]),
    ):
        config = on_cluster(
            make_config(write_manifest(uris), decode={"range_above_mb": None}), head.gcs_address, tmp_path, **labels
        )
        driver = start(config, environment=AUTH_MODE)
        assert driver.finish(timeout_s=300) == 0, driver.tail()
    table = pd.read_parquet(Path(config.run.path) / "predictions")
    assert table["clip_id"].tolist() == [f"c{i:04d}" for i in range(len(uris))]
    blamed = table[table["status"] != "ok"]
    assert blamed["clip_id"].tolist() == [f"c{GUILTY:04d}"]
    assert blamed["status"].tolist() == ["poison"]
    assert "memory" in blamed["error_message"].item()
    assert "block_lost" in [event["event"] for event in events(config)]
