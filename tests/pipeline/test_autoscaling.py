"""From no machine to some and back: the run starts on a head without CPUs, waits, works, and leaves nothing behind."""

from pathlib import Path

import psutil
import pytest
from fake_cloud import ENVIRONMENT, autoscaling_arguments
from ray_head import AUTH_MODE, RayHead, free_port, ray_head
from slow_run import assert_exactly_the_manifest, committed, events, on_cluster, wait_for

from tests.s3 import CREDENTIALS

HERE = Path(__file__).parent
NODE_STORE_BYTES = 128 << 20
MACHINES = {
    "decode": {"CPU": 2, "object_store_memory": NODE_STORE_BYTES},
    "classify": {"CPU": 1, "GPU": 1, "object_store_memory": NODE_STORE_BYTES},
}
IDLE_S = 6.0


def named(head: RayHead, part: str) -> list[psutil.Process]:
    found = []
    for process in head.processes():
        try:
            if any(word.endswith(part) for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def machines(head: RayHead) -> int:
    return len(named(head, "raylet/raylet")) - 1  # without the head's own


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_run_without_a_machine_says_that_it_waits_gets_some_and_lets_them_go(slow_config, start, tmp_path):
    port = free_port()
    address = f"127.0.0.1:{port}"
    arguments = autoscaling_arguments(tmp_path, gcs_address=address, machines=MACHINES, idle_s=IDLE_S)
    environment = CREDENTIALS | ENVIRONMENT | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    with ray_head(num_cpus=0, environment=environment, port=port, arguments=arguments) as head:
        wait_for(lambda: named(head, "autoscaler/v2/monitor.py"))
        [autoscaler] = named(head, "autoscaler/v2/monitor.py")
        autoscaler.suspend()  # a cloud that has no machine to give
        resources = {"device": "cpu", "classify_gpus": 1, "classify_cpus": 0.5}
        config = on_cluster(slow_config, head.gcs_address, tmp_path, **resources)
        driver = start(config, environment=AUTH_MODE)
        driver.wait_for(lambda: "Waiting for capacity" in driver.log.read_text())
        assert machines(head) == 0
        autoscaler.resume()
        driver.wait_for(lambda: committed(config))
        assert machines(head) == len(MACHINES)
        assert driver.finish(timeout_s=200) == 0, driver.tail()
        wait_for(lambda: machines(head) == 0, timeout_s=90)
    assert_exactly_the_manifest(config)
    kinds = [event["event"] for event in events(config)]
    assert kinds.count("node_joined") == len(MACHINES)
    assert kinds.index("waiting_for_capacity") < kinds.index("capacity_there") < kinds.index("unit_committed")
