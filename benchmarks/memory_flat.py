"""Resident memory of the driver and of its workers while a run goes on: it must not grow with the number of clips.

    python benchmarks/memory_flat.py --clips 5000

Labels `--clips` short generated clips (40 distinct ones, linked) with the demo config and prints the RSS at 10, 50 and
100 % of the run: of the driver, and of the largest decode worker, decoder child and classifier.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from process_tree import private_memory, processes

from vidcls_batch.config import load_config
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.progress import SilentProgress
from vidcls_batch.synthetic.dataset import write_dataset

DISTINCT_CLIPS = 40
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


class MemoryWatch(SilentProgress):
    """Prints memory when a share of the clips is through."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._left = total, 0, list(SHARES)
        self._started = time.monotonic()

    def add(self, statuses: Mapping[str, int]) -> None:
        self._done += sum(statuses.values())
        while self._left and self._done >= self._left[0] * self._total:
            share = self._left.pop(0)
            print(
                f"{share:4.0%} {self._done:6d} clips {time.monotonic() - self._started:6.0f} s  {_memory()}", flush=True
            )


def _memory() -> str:
    parts = []
    for group, members in processes().items():
        sizes = []
        for process in members:
            try:
                sizes.append(private_memory(process))
            except psutil.Error:
                continue
        parts.append(f"{group} {max(sizes, default=0) >> 20}")
    return "MiB (largest of each): " + ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vidcls-memory")
    arguments = parser.parse_args()
    folder = arguments.folder
    if not (folder / "source").exists():
        write_dataset(folder / "source", num_clips=DISTINCT_CLIPS, seed=1)
    sources = sorted((folder / "source").glob("*.mp4"))
    (folder / "clips").mkdir(exist_ok=True)
    lines = []
    for i in range(arguments.clips):
        path = folder / "clips" / f"{i:06d}.mp4"
        if not path.exists():
            os.link(sources[i % len(sources)], path)
        lines.append(str(path))
    manifest = folder / f"manifest-{arguments.clips}.txt"
    manifest.write_text("\n".join(lines) + "\n")
    run = folder / f"run-{int(time.time())}"
    config = load_config(Path("configs/demo.yaml"), overrides=[f"run.path={run}", f"manifest.path={manifest}"])
    outcome = run_labeling(config, progress=MemoryWatch(arguments.clips))
    print(outcome)
    print(platform.machine(), os.cpu_count(), "cores,", ", ".join(f"{n} {version(n)}" for n in ("ray", "torch", "av")))


if __name__ == "__main__":
    main()
