"""Kills at random instants over one run: what is lost, what is doubled, how many clips are made again for each kill.

`python -m benchmarks.fifty_kills --kills 50 --clips 2400`, about 15 minutes on 2 cores. Victims: decode workers,
classifiers, decoder children, and the driver itself with all it started.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "pipeline")]

VICTIMS = {
    "decode worker": "ray::MapBatches(_decode_block)",
    "classifier": "ray::MapWorker",
    "decoder child": "sandbox_child",
    "driver": "",
}


def main() -> None:
    from contracts.tiny_checkpoints import timesformer, videomae
    from driver import Driver
    from pipeline.conftest import Models, config_tree, save_manifest
    from slow_run import committed
    from worker_faults import BACKEND, TALLY, with_fault

    from vidcls_batch.config import parse_config
    from vidcls_batch.synthetic.clips import write_clip
    from vidcls_batch.synthetic.motions import LABELS as MOTIONS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clips", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chooser = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="vidcls-kills-") as name:
        folder = Path(name)
        tally = Path("/tmp") / f"vk{os.getpid()}"  # a short path: it travels in a clip's last bytes
        clip = folder / "clip.mp4"
        write_clip(clip, label=MOTIONS[0], seed=0, size=(64, 48), fps=10, duration_s=1.0)
        paths = []
        for i in range(options.clips):
            path = folder / f"{i:05d}.mp4"
            path.write_bytes(with_fault(clip.read_bytes(), f"{TALLY}{i:05d}:{tally}"))
            paths.append(path)
        models = Models(videomae(folder / "v").path, timesformer(folder / "t").path)
        tree = config_tree(save_manifest(folder / "m.parquet", paths), run=folder / "run", models=models)
        tree |= {"decode": {"backend": BACKEND}, "output": {"unit_clips": 40}}
        config = parse_config(tree)
        killed: Counter[str] = Counter()
        touched = 0
        started = time.monotonic()
        driver = Driver(config, folder=folder)
        try:
            while killed.total() < options.kills and not (folder / "run" / "_SUCCESS").exists():
                time.sleep(chooser.uniform(1, 10))
                if driver.process.poll() is not None:
                    break
                victim = chooser.choice(list(VICTIMS))
                before = committed(config)
                if victim == "driver":
                    driver.kill()
                    driver.end()
                    touched += any(committed(config)[name] != data for name, data in before.items())
                    driver = Driver(config, folder=folder)
                else:
                    found = driver.named(VICTIMS[victim])
                    if not found:
                        continue
                    chooser.choice(found).send_signal(signal.SIGKILL)
                killed[victim] += 1
            code = driver.finish(timeout_s=3600)
        finally:
            driver.end()
        table = pd.read_parquet(folder / "run" / "predictions")
        decoded = Counter(tally.read_text().split())
        tally.unlink()
        again = sum(count - 1 for count in decoded.values())
        figures = {
            "exit_code": code,
            "kills": dict(killed),
            "clips": options.clips,
            "rows": len(table),
            "distinct": int(table["clip_id"].nunique()),
            "statuses": table["status"].value_counts().to_dict(),
            "committed_units_touched": touched,
            "clips_decoded_again": again,
            "again_per_kill": round(again / max(1, killed.total()), 1),
            "seconds": round(time.monotonic() - started),
        }
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
