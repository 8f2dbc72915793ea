"""Two classifiers share a GPU, and one of them is killed every few seconds as long as the run lasts."""

import random
import time
from pathlib import Path

import pytest
from slow_run import assert_exactly_the_manifest, committed, decoded_again, on_cluster
from three_nodes import three_nodes

HERE = Path(__file__).parent
CLASSIFIER = "ray::MapWorker"
BETWEEN_KILLS_S = 2.0


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_classifier_killed_every_few_seconds_costs_no_row_and_blames_no_clip(slow_config, start, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    chooser = random.Random(0)
    kills, most_at_once = 0, 0
    with three_nodes(head_cpus=4, head_gpus=1) as nodes:
        resources = {"device": "cpu", "classify_gpus": 0.5, "classify_actors": 2, "classify_cpus": 0.5}
        config = on_cluster(slow_config, nodes.address, tmp_path, **resources)
        driver = start(config)
        driver.wait_for(lambda: committed(config))
        while driver.process.poll() is None:
            here = set(nodes.workers(CLASSIFIER))
            most_at_once = max(most_at_once, len(here))
            victims = sorted(here - set(nodes.workers("__init__")), key=lambda process: process.pid)
            before = committed(config)
            if victims:
                chooser.choice(victims).kill()
                kills += 1
            time.sleep(BETWEEN_KILLS_S)
            assert {name: committed(config)[name] for name in before} == before
        assert driver.finish(timeout_s=10) == 0, driver.tail()
    assert_exactly_the_manifest(config)
    assert most_at_once == 2
    assert kills >= 3
    print(f"{kills} kills, {decoded_again(config)} clips decoded again")
    assert decoded_again(config) <= 16 * kills  # what waits in or for one classifier: four blocks at most
