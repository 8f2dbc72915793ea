"""In a cluster that others may want: classifiers go while decoding is slower, decode tasks while classifying is."""

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from ray_head import AUTH_MODE, RayHead, ray_head

from tests.s3 import CREDENTIALS
from vidcls_batch.config import resolved

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CLIPS, BLOCK, SECONDS = 240, 4, 1.0
CLASSIFIERS = 3


@dataclass(frozen=True)
class Seen:
    units: int
    classifiers: int
    decoding: int


def look(head: RayHead, run: Path) -> Seen:
    titles: Counter[str] = Counter()
    for process in head.processes():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        titles["classifiers"] += "ray::MapWorker" in line
        titles["decoding"] += "ray::MapBatches(sleep_and_decode)" in line
    units = len(list((run / "predictions").glob("unit-*.parquet")))
    return Seen(units, titles["classifiers"], titles["decoding"])


def test_idle_classifiers_are_released_and_come_back_and_decoding_leaves_its_cpus(make_config, tmp_path):
    ids = [f"{i:09d}" for i in range(CLIPS)]
    manifest = tmp_path / "manifest.parquet"
    pd.DataFrame({"clip_id": ids, "uri": [f"s3://bucket/{i}.mp4" for i in ids]}).to_parquet(manifest)
    environment = CREDENTIALS | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
    resources = {"batch_size": BLOCK, "classify_actors": CLASSIFIERS, "classify_cpus": 1.5, "decode_cpus": 1}
    seen: list[Seen] = []
    with ray_head(num_cpus=8, environment=environment) as head:
        run = {"path": str(tmp_path / "run"), "canary_clips": 0, "ray_address": head.gcs_address}
        config = make_config(manifest, run=run, resources=resources, output={"unit_clips": 12})
        config_file, log = tmp_path / "config.yaml", tmp_path / "driver.log"
        config_file.write_text(yaml.safe_dump(resolved(config)))
        command = [sys.executable, str(HERE / "tail_driver.py"), str(config_file), str(CLIPS // 2), str(SECONDS)]
        with log.open("wb") as out:
            driver = subprocess.Popen(
                command, stdout=out, stderr=out, env=os.environ | environment | AUTH_MODE, cwd=ROOT
            )
        try:
            while driver.poll() is None:
                seen.append(look(head, tmp_path / "run"))
                time.sleep(0.5)
        finally:
            driver.kill()
            driver.wait()
        assert driver.returncode == 0, log.read_text()[-4000:]
    units = CLIPS // 12
    assert max(s.classifiers for s in seen if s.units == 0) == CLASSIFIERS, "they start together"
    slow_decoding = [s for s in seen if 0 < s.units <= units // 2]
    assert min(s.classifiers for s in slow_decoding) < CLASSIFIERS, slow_decoding
    slow_classifying = [s for s in seen if units * 3 // 4 <= s.units < units]
    assert max(s.classifiers for s in slow_classifying) == CLASSIFIERS, slow_classifying
    assert {s.decoding for s in slow_classifying} == {0}, slow_classifying
