"""What Prometheus gets from a run: the ports that Ray's service discovery names, scraped while clips are labeled."""

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray_head import AUTH_MODE, RayHead, ray_head
from worker_faults import BACKEND, with_fault

from tests.s3 import CREDENTIALS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
HERE = Path(__file__).parent
MONITORING = HERE.parents[1] / "infra" / "monitoring"
OFTEN = {"RAY_metrics_report_interval_ms": "1000"}
# What this run gives no cause for: a store that fails, a node that goes, a clip that kills all its workers.
NOT_HERE = {f"ray_vidcls_{name}_total" for name in ("nodes_lost", "lost_blocks", "clips_tried_again")}
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(head: RayHead) -> Series:
    """(Name, labels) -> value, of all ports that are named to Prometheus."""
    found: Series = {}
    for group in json.loads((head.folder / "prom_metrics_service_discovery.json").read_text()):
        for target in group["targets"]:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as reply:
                text = reply.read().decode()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def named_by_rules_and_dashboard() -> set[str]:
    text = (MONITORING / "rules.yaml").read_text() + (MONITORING / "dashboard.json").read_text()
    return set(re.findall(r"\bray_(?:vidcls|data)_\w+", text))


def total(series: Series, name: str, **labels: str) -> float:
    return sum(v for (n, tags), v in series.items() if n == name and labels.items() <= dict(tags).items())


def decode_workers(head: RayHead) -> Iterator[psutil.Process]:
    for process in head.processes():
        try:
            if "ray::MapBatches(_decode_block)" in " ".join(process.cmdline()):
                yield process
        except psutil.Error:
            continue


def test_a_scrape_has_every_series_of_the_rules_and_the_dashboard(slow_config, write_manifest, clips, start, tmp_path):
    good = clips[0].read_bytes()
    slow = sorted((tmp_path / "slow").iterdir())[:40]
    bad = {fault: tmp_path / f"{fault}.mp4" for fault in ("hang", "segfault")}
    for fault, path in bad.items():
        path.write_bytes(with_fault(good, fault))
    manifest = write_manifest([*slow[:20], *bad.values(), tmp_path / "missing.mp4", *slow[20:]])
    num_clips = len(slow) + 3
    with ray_head(
        num_cpus=4, environment=CREDENTIALS | OFTEN | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    ) as head:
        config = slow_config.model_copy(
            update={
                "run": slow_config.run.model_copy(update={"ray_address": head.gcs_address}),
                "manifest": slow_config.manifest.model_copy(update={"path": str(manifest), "allow": (str(tmp_path),)}),
                "decode": slow_config.decode.model_copy(update={"backend": BACKEND, "timeout_s": 3.0}),
            }
        )
        driver = start(config, environment=AUTH_MODE | OFTEN)
        series: Series = {}
        deepest_queue = 0.0
        has_killed = False
        while driver.process.poll() is None:
            try:
                now = scrape(head)
            except OSError:  # not yet there
                now = {}
            series |= now
            deepest_queue = max(deepest_queue, total(now, "ray_data_num_external_inqueue_blocks"))
            if not has_killed and total(now, "ray_vidcls_clips_total") >= 8:
                has_killed = any(_killed(worker) for worker in decode_workers(head))
            time.sleep(0.5)
        assert driver.process.returncode == 0, driver.tail()
    names = {name for name, _ in series}
    assert named_by_rules_and_dashboard() - names - NOT_HERE == set()
    assert has_killed
    rows = {s: total(series, "ray_vidcls_clips_total", status=s) for s in ("ok", "timeout", "crashed", "fetch_error")}
    # The last second's counts may go with the processes that counted.
    assert num_clips - 12 <= sum(rows.values()) <= num_clips
    assert rows["ok"] >= 25
    assert total(series, "ray_vidcls_units_committed_total") >= 5
    for stage in ("decode", "classify"):
        assert total(series, "ray_vidcls_blocks_total", stage=stage) >= 6
        assert total(series, "ray_vidcls_clip_seconds_count", stage=stage) >= 25
        assert total(series, "ray_vidcls_busy_seconds_total", stage=stage) > 0
    busy = [dict(labels) for name, labels in series if name == "ray_vidcls_busy_seconds_total"]
    assert len({labels["WorkerId"] for labels in busy}) == len(busy) >= 2  # the busy share is over their number
    # Each slow clip takes half a second to decode.
    assert total(series, "ray_vidcls_clip_seconds_sum", stage="decode") >= 0.5 * 25
    assert total(series, "ray_vidcls_fetch_requests_total") >= 25
    assert total(series, "ray_vidcls_fetched_bytes_total") >= 25 * len(good) // 2
    assert total(series, "ray_vidcls_decoder_deaths_total", status="timeout") >= 1
    assert total(series, "ray_vidcls_block_retries_total", stage="decode") >= 1
    assert deepest_queue >= 1


def _killed(process: psutil.Process) -> bool:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True
