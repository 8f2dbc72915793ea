"""Clips/s of a run divided by what the same decode and model calls reach in a bare loop over all cores without Ray.

    python benchmarks/pipeline_efficiency.py --clips 600 --repeats 3

Both label the same 10 s 340x256 H.264 clips with the same two randomly initialised members. The bare loop is one
process per core that reads a file, decodes it in-process and scores whole batches: no sandbox, no object store, no
table. Rates are steady ones, from the first finished batch to the last, in both; starting up is told apart. The two
take turns.
"""

import argparse
import json
import multiprocessing as mp
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent))
from process_tree import CpuWatch

from vidcls_batch.config import Config, parse_config
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.progress import SilentProgress
from vidcls_batch.resources import Capacity, stage_resources
from vidcls_batch.run_spec import resolve_run
from vidcls_batch.schema import DECODED, ROUTE
from vidcls_batch.stages.decode import FRAMES
from vidcls_batch.synthetic.benchmark_clip import write_benchmark_clip

Bare = tuple[list[tuple[float, int]], float]  # when batches were done; CPU seconds after the first
DISTINCT_CLIPS = 40  # decoded again and again: the work is the same, making more would only take longer
LABELS = [f"class {i}" for i in range(400)]


class Clock(SilentProgress):
    """When the run's batches came back, and what CPU time each part of it spent from the first to the last."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, int]] = []
        self.cpu: CpuWatch | None = None
        self.looked = 0.0

    def add(self, statuses: Mapping[str, int]) -> None:
        if count := sum(statuses.values()):
            self.batches.append((time.perf_counter(), count))
        if self.cpu is None:
            self.cpu = CpuWatch()
        elif time.perf_counter() - self.looked > 2:
            self.cpu.look()
            self.looked = time.perf_counter()


def steady_rate(batches: list[tuple[float, int]]) -> float:
    """Clips/s from the first finished batch (not counted) to the last."""
    batches = sorted(batches)
    return sum(n for _, n in batches[1:]) / (batches[-1][0] - batches[0][0])


def save_models(folder: Path) -> None:
    import torch
    from transformers import (
        TimesformerConfig,
        TimesformerForVideoClassification,
        VideoMAEConfig,
        VideoMAEForVideoClassification,
    )

    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    shared = {"image_size": 112, "patch_size": 16, "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3}
    shared |= {"intermediate_size": 768, "id2label": names, "label2id": {v: k for k, v in names.items()}}
    VideoMAEForVideoClassification(VideoMAEConfig(num_frames=16, **shared)).save_pretrained(folder / "videomae")
    TimesformerForVideoClassification(TimesformerConfig(num_frames=8, **shared)).save_pretrained(folder / "timesformer")
    facts = {"size": {"shortest_edge": 112}, "crop_size": {"height": 112, "width": 112}, "do_normalize": True}
    facts |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_rescale": True}
    facts |= {"rescale_factor": 1 / 255, "do_resize": True, "do_center_crop": True, "resample": 2}
    facts["image_processor_type"] = "VideoMAEImageProcessor"
    for name in ("videomae", "timesformer"):
        (folder / name / "preprocessor_config.json").write_text(json.dumps(facts))


def make_config(folder: Path, *, run: str, num_clips: int) -> Config:
    manifest = folder / f"clips-{num_clips}.txt"
    if not manifest.exists():
        lines = []
        for i in range(num_clips):
            path = folder / "clips" / f"{i:05d}.mp4"
            if not path.exists():
                os.link(folder / "source" / f"{i % DISTINCT_CLIPS:03d}.mp4", path)
            lines.append(str(path))
        manifest.write_text("\n".join(lines) + "\n")
    uniform = {"rule": "uniform"}
    return parse_config(
        {
            "run": str(folder / run),
            "manifest": str(manifest),
            "label_set": LABELS,
            "decode": {"short_side": 224},
            "members": [
                {"name": "vm", "family": "videomae", "checkpoint": str(folder / "videomae"), "sampling": uniform},
                {"name": "ts", "family": "timesformer", "checkpoint": str(folder / "timesformer"), "sampling": uniform},
            ],
            "output": {"unit_clips": 64},
        }
    )


def bare_worker(config: Config, paths: list[str], batch: int, results: "mp.Queue[Bare]") -> None:
    from vidcls_batch.stages.classify import BlockClassifier
    from vidcls_batch.types import DecodeLimits
    from vidcls_batch.video.decode import decode_into
    from vidcls_batch.video.decoders.base import make_decoder

    spec = resolve_run(config)
    capacity = Capacity(num_cpus=1, num_gpus=0, private=True)
    classifier = BlockClassifier(
        spec.classify_settings(stage_resources(config.resources, capacity=capacity, frame_bytes=spec.frame_bytes))
    )
    request = spec.request
    decoder = make_decoder("auto", height=request.height, width=request.width)
    done: list[tuple[float, int]] = []
    cpu_before = 0.0
    for start in range(0, len(paths), batch):
        part = paths[start : start + batch]
        frames = np.zeros((len(part), *request.frames_shape), np.uint8)
        for i, path in enumerate(part):
            decode_into(frames[i], Path(path).read_bytes(), decoder=decoder, request=request, limits=DecodeLimits())
        rows = [{"unit": 0, "clip_id": p, "status": "ok", "attempts": 1} for p in part]
        table = pa.Table.from_pylist(rows, schema=pa.schema([*ROUTE, *DECODED]))
        classifier(table.append_column(FRAMES, pa.FixedShapeTensorArray.from_numpy_ndarray(frames)))
        done.append((time.perf_counter(), len(part)))
        cpu_before = cpu_before or time.process_time()
    results.put((done, time.process_time() - cpu_before))


def bare_loop(config: Config, *, batch: int, cores: int) -> tuple[float, float, float]:
    """Steady clips/s, seconds until the first batch, CPU milliseconds per clip."""
    paths = Path(config.manifest.path).read_text().split()
    context = mp.get_context("spawn")
    results: mp.Queue[Bare] = context.Queue()
    started = time.perf_counter()
    workers = [
        context.Process(target=bare_worker, args=(config, paths[i::cores], batch, results)) for i in range(cores)
    ]
    for worker in workers:
        worker.start()
    ended = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    batches = [done for done, _ in ended]
    clips = sum(n for done in batches for _, n in done[1:])
    # The cores' rates add up; one that ends first must not be counted idle while the other finishes.
    rate = sum(steady_rate(done) for done in batches)
    return rate, min(b[0][0] for b in batches) - started, sum(cpu for _, cpu in ended) / clips * 1000


def ray_run(config: Config) -> tuple[float, float, float, dict[str, float]]:
    """Steady clips/s, seconds until the first batch, clips/s of the whole call, CPU milliseconds per clip by group."""
    clock = Clock()
    started = time.perf_counter()
    outcome = run_labeling(config, progress=clock)
    seconds = time.perf_counter() - started
    assert outcome.statuses == {"ok": outcome.num_clips}, outcome.statuses
    assert clock.cpu is not None
    clips = sum(n for at, n in clock.batches if clock.batches[0][0] < at <= clock.looked)
    cpu = {group: spent / clips * 1000 for group, spent in clock.cpu.spent.items()}
    return steady_rate(clock.batches), clock.batches[0][0] - started, outcome.num_clips / seconds, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vidcls-efficiency")
    arguments = parser.parse_args()
    folder = arguments.folder
    for name in ("source", "clips"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(DISTINCT_CLIPS):
        if not (path := folder / "source" / f"{i:03d}.mp4").exists():
            write_benchmark_clip(path, seed=i)
    if not (folder / "videomae").exists():
        save_models(folder)
    cores = len(os.sched_getaffinity(0))
    stamp = int(time.time())
    ratios = []
    for repeat in range(arguments.repeats):
        config = make_config(folder, run=f"run-{stamp}-{repeat}", num_clips=arguments.clips)
        spec = resolve_run(config)
        capacity = Capacity(num_cpus=cores, num_gpus=0, private=True)
        batch = stage_resources(config.resources, capacity=capacity, frame_bytes=spec.frame_bytes).batch_size
        bare, bare_first, bare_cpu = bare_loop(config, batch=batch, cores=cores)
        rate, first, whole, cpu = ray_run(config)
        ratios.append(rate / bare)
        print(
            f"repeat {repeat}: bare loop {bare:.2f} clips/s (first batch after {bare_first:.1f} s), "
            f"run {rate:.2f} clips/s (first after {first:.1f} s; whole call {whole:.2f}), ratio {rate / bare:.3f}",
        )
        spent = sorted(cpu.items(), key=lambda item: -item[1])
        print(
            f"  CPU ms/clip: bare loop {bare_cpu:.0f}; run {sum(cpu.values()):.0f} = "
            + " + ".join(f"{group} {ms:.1f}" for group, ms in spent),
            flush=True,
        )
    print(
        f"median ratio {statistics.median(ratios):.3f} [{min(ratios):.3f}..{max(ratios):.3f}], "
        f"{arguments.clips} clips, {cores} cores, {platform.machine()}, "
        + ", ".join(f"{n} {version(n)}" for n in ("ray", "torch", "transformers", "av", "pyarrow"))
    )


if __name__ == "__main__":
    main()
