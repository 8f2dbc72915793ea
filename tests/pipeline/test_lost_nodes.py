"""Machines that go in the middle of a run: of three raylets one is killed, drained, or brought back."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray_head import AUTH_MODE, ray_head
from slow_run import assert_exactly_the_manifest, committed, events, on_cluster
from three_nodes import three_nodes

from tests.s3 import CREDENTIALS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(800)]
HERE = Path(__file__).parent


@pytest.fixture
def nodes(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))  # the workers' decoder that is slow on purpose
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with three_nodes() as cluster:
        yield cluster


@pytest.mark.parametrize("victim", ["decode", "classify"])
def test_killed_node_costs_no_row_and_touches_no_committed_unit(victim, nodes, slow_config, start, tmp_path):
    pools = {pool: nodes.add(num_cpus=2, labels={"pool": pool}) for pool in ("decode", "classify")}
    config = on_cluster(
        slow_config, nodes.address, tmp_path, decode_labels={"pool": "decode"}, classify_labels={"pool": "classify"}
    )
    driver = start(config)
    driver.wait_for(lambda: len(committed(config)) >= 3)
    before = committed(config)
    nodes.kill(pools[victim])  # with the blocks in its object store
    time.sleep(6)
    nodes.add(num_cpus=2, labels={"pool": victim})
    assert driver.finish(timeout_s=200) == 0, driver.tail()
    assert {name: committed(config)[name] for name in before} == before
    assert_exactly_the_manifest(config)
    kinds = [e["event"] for e in events(config)]
    assert "node_lost" in kinds
    assert "node_joined" in kinds


def test_node_that_is_told_to_go_is_drained_and_replaced(nodes, slow_config, start, tmp_path):
    leaving, _ = nodes.add(num_cpus=2), nodes.add(num_cpus=2)
    config = on_cluster(slow_config, nodes.address, tmp_path)
    driver = start(config)
    driver.wait_for(lambda: len(committed(config)) >= 2)
    ray = Path(sys.executable).parent / "ray"
    notice = ["drain-node", "--address", nodes.address, "--node-id", leaving.node_id,
              "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", 
              "--deadline-remaining-seconds", "5"]  # fmt: skip
    subprocess.run([str(ray), *notice], check=True, timeout=60)
    time.sleep(5)
    nodes.kill(leaving)
    assert driver.finish(timeout_s=200) == 0, driver.tail()
    assert_exactly_the_manifest(config)


def test_head_and_driver_killed_then_submitted_to_a_new_head(slow_config, start, tmp_path):
    environment = CREDENTIALS | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    with ray_head(num_cpus=4, environment=environment) as head:
        config = on_cluster(slow_config, head.gcs_address, tmp_path)
        driver = start(config, environment=AUTH_MODE)
        driver.wait_for(lambda: len(committed(config)) >= 3)
        driver.kill()
        head.kill()
    before = committed(config)
    with ray_head(num_cpus=4, environment=environment) as head:
        config = on_cluster(slow_config, head.gcs_address, tmp_path)
        started = time.monotonic()
        again = start(config, environment=AUTH_MODE)
        again.wait_for(lambda: len(committed(config)) > len(before))
        back_after_s = time.monotonic() - started
        assert again.finish(timeout_s=200) == 0, again.tail()
    assert {name: committed(config)[name] for name in before} == before
    assert_exactly_the_manifest(config)
    assert back_after_s < 60
