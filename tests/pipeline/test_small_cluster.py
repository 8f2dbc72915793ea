"""A cluster with hardly more room than one worker of each stage: the run must not stand still for ever."""

import pytest
from ray_head import AUTH_MODE, ray_head
from slow_run import on_cluster

from tests.s3 import CREDENTIALS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_two_cpus_are_enough_for_a_run(make_config, write_manifest, clips, start):
    config = make_config(write_manifest(clips), resources={"batch_size": 4})
    with ray_head(num_cpus=2, environment=CREDENTIALS | {"OMP_NUM_THREADS": "1"}) as head:
        driver = start(on_cluster(config, head.gcs_address, clips[0].parent), environment=AUTH_MODE)
        assert driver.finish(timeout_s=240) == 0, driver.tail()
    assert "ok 12" in driver.log.read_text()
