"""How many classifiers there are while a run goes on."""

import time

import pytest
from slow_run import assert_exactly_the_manifest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_classifiers_start_together(slow_config, start):
    resources = slow_config.resources.model_copy(update={"classify_actors": 3, "classify_cpus": 0.3})
    driver = start(slow_config.model_copy(update={"resources": resources}))
    seen: list[int] = []
    while driver.process.poll() is None:
        seen.append(len(driver.named("ray::MapWorker")))
        time.sleep(0.5)
    assert driver.process.returncode == 0, driver.tail()
    assert_exactly_the_manifest(slow_config)
    assert max(seen) == 3
    at_most = seen.index(3)
    started = next(i for i, count in enumerate(seen) if count)
    assert (at_most - started) * 0.5 < 10, "one by one, each after the last has loaded its models"
