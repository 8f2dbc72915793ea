"""SIGKILL at any instant, then the same command again: as if nothing had happened."""

import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from slow_run import NUM_CLIPS, assert_exactly_the_manifest, committed


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_driver_killed_at_ten_random_moments_then_finished(slow_config, start):
    chooser = random.Random(0)
    for _ in range(10):
        driver = start(slow_config)
        before = committed(slow_config)
        time.sleep(chooser.uniform(2, 16))
        driver.kill()
        after = committed(slow_config)
        assert {name: after[name] for name in before} == before
    before = committed(slow_config)
    driver = start(slow_config)
    assert driver.finish() == 0, driver.tail()
    after = committed(slow_config)
    assert {name: after[name] for name in before} == before
    assert_exactly_the_manifest(slow_config)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["ray::MapBatches(_decode_block)", "ray::MapWorker", "sandbox"])
def test_workers_killed_at_random_moments_cost_no_row(slow_config, start, victim):
    chooser = random.Random(victim)
    driver = start(slow_config)
    driver.wait_for(lambda: committed(slow_config))
    kills = 0
    while driver.process.poll() is None and kills < 10:
        victims = driver.named(victim)
        if victims:
            chooser.choice(victims).send_signal(signal.SIGKILL)
            kills += 1
        time.sleep(chooser.uniform(0.2, 2))
    assert driver.finish(timeout_s=300) == 0, driver.tail()
    assert kills >= 5
    table = pd.read_parquet(Path(slow_config.run.path) / "predictions")
    assert table["clip_id"].tolist() == [f"c{i:04d}" for i in range(NUM_CLIPS)]
    blamed = table[table["status"] != "ok"]
    assert len(blamed) <= kills
    assert set(blamed["status"]) <= ({"crashed"} if victim == "sandbox" else set())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_interrupted_run_says_how_to_go_on_and_exits_130(slow_config, start):
    driver = start(slow_config)
    driver.wait_for(lambda: committed(slow_config))
    driver.process.send_signal(signal.SIGINT)
    assert driver.finish(timeout_s=60) == 130
    assert "run the same command again" in driver.log.read_text()
    again = start(slow_config)
    assert again.finish() == 0, again.tail()
    assert_exactly_the_manifest(slow_config)


@pytest.mark.chaos
@pytest.mark.timeout(400)
def test_two_drivers_on_one_folder_do_no_harm(slow_config, start):
    first, second = start(slow_config), start(slow_config)
    assert first.finish(timeout_s=300) == 0, first.tail()
    assert second.finish(timeout_s=300) == 0, second.tail()
    assert_exactly_the_manifest(slow_config)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_run_folder_that_vanishes_is_a_clear_error_and_a_good_resume(slow_config, start, tmp_path):
    driver = start(slow_config)
    driver.wait_for(lambda: committed(slow_config))
    run, away = Path(slow_config.run.path), tmp_path / "away"
    run.rename(away)
    assert driver.finish(timeout_s=120) == 6
    assert "Error: " in driver.log.read_text()
    assert "Traceback" not in driver.log.read_text()
    assert not run.exists()
    away.rename(run)
    again = start(slow_config)
    assert again.finish() == 0, again.tail()
    assert_exactly_the_manifest(slow_config)
