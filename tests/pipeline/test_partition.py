"""A node that works on but cannot be heard, and then can again."""

import time
from pathlib import Path

import pytest
from network_cable import network_cable
from ray_head import AUTH_MODE, ray_head
from ray_node import ray_node
from slow_run import assert_exactly_the_manifest, committed, decoded_again, on_cluster, wait_for

from tests.s3 import CREDENTIALS

HERE = Path(__file__).parent
HEALTH_CHECKS = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "1000",
                 "RAY_health_check_failure_threshold": "3"}  # fmt: skip
CUT_OFF_S = 15.0
DECODER = "ray::MapBatches(_decode_block)"


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_node_that_is_cut_off_and_comes_back_doubles_nothing(slow_config, start, tmp_path):
    environment = CREDENTIALS | HEALTH_CHECKS | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    with (
        network_cable() as cable,
        ray_head(num_cpus=2, environment=environment, host=cable.here) as head,
        ray_node(
            head, num_cpus=2, environment=environment, host=cable.there, within=cable.within,
            arguments=["--labels=pool=far"],
        ) as node,
    ):  # fmt: skip
        config = on_cluster(slow_config, head.gcs_address, tmp_path, classify_cpus=0.5)
        driver = start(config, environment=AUTH_MODE)
        driver.wait_for(lambda: len(committed(config)) >= 2 and node.workers(DECODER))
        before = committed(config)
        cable.pull()
        cut = time.monotonic()
        driver.wait_for(lambda: "is gone; its blocks are made again" in driver.log.read_text())
        noticed_s = time.monotonic() - cut
        time.sleep(max(0.0, CUT_OFF_S - noticed_s))
        zombies = node.workers("ray::")
        assert zombies, "the node lives while nobody hears it"
        without = len(committed(config)) - len(before)
        cable.plug()
        plugged = time.monotonic()
        driver.wait_for(lambda: len(committed(config)) > len(before) + without)
        goes_on_s = time.monotonic() - plugged
        wait_for(lambda: not node.processes(), timeout_s=60)  # told that it is dead, it ends
        assert driver.finish(timeout_s=200) == 0, driver.tail()
    assert {name: committed(config)[name] for name in before} == before
    assert_exactly_the_manifest(config)
    print(
        f"gone after {noticed_s:.1f} s, {without} units while it was, on {goes_on_s:.1f} s after it was back, "
        f"{decoded_again(config)} clips decoded again"
    )
