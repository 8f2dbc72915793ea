"""A million clips through the real plan, pipeline, commit, resume, verify and status; decode and models are stand-ins.

    python -m benchmarks.scale_simulation             through Ray Data; the driver is killed once on the way
    python -m benchmarks.scale_simulation --direct    the driver's own work alone: plan, collect, commit

What is left is what the machinery costs. Limits on 2 cores: 3,000 rows/s end to end, driver 2 GiB, verify 60 s and
status 5 s for a million clips. Exits 1 when one is missed. Each step is a process of its own, so that its peak memory
is its own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from benchmarks.pipeline_efficiency import save_models
from benchmarks.plan_scale import peak_mib
from vidcls_batch import pipeline
from vidcls_batch.config import Config, parse_config
from vidcls_batch.dataset.commit import UnitCollector, pending_units
from vidcls_batch.dataset.plan import read_unit, require_plan
from vidcls_batch.dataset.status import run_status
from vidcls_batch.dataset.verify import verify_run
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.planning import plan_run
from vidcls_batch.progress import SilentProgress
from vidcls_batch.schema import MemberColumns, prediction_schema, result_schema
from vidcls_batch.stages.classify import ClassifySettings
from vidcls_batch.storage import StorageOptions, open_store

LABELS = [f"class {i}" for i in range(400)]
MEMBERS = [MemberColumns("vm"), MemberColumns("ts")]
LIMITS = {"rows_per_s": 3000.0, "driver_mib": 2048.0, "verify_s": 60.0, "status_s": 5.0}  # seconds for a million clips
ROWS_AT_ONCE = 100_000


def config_of(folder: Path, *, unit_clips: int, batch_size: int) -> Config:
    uniform = {"rule": "uniform"}
    members = [
        {"name": "vm", "family": "videomae", "checkpoint": str(folder / "videomae"), "sampling": uniform},
        {"name": "ts", "family": "timesformer", "checkpoint": str(folder / "timesformer"), "sampling": uniform},
    ]
    return parse_config(
        {
            "run": {"path": str(folder / "run"), "canary_clips": 4},
            "manifest": str(folder / "manifest.parquet"),
            "label_set": LABELS,
            "members": members,
            "resources": {"batch_size": batch_size, "num_cpus": 2, "object_store_mb": 512},
            "output": {"unit_clips": unit_clips},
        }
    )


def write_manifest(path: Path, clips: int) -> None:
    schema = pa.schema([("clip_id", pa.string()), ("uri", pa.string()), ("caption", pa.string())])
    with pq.ParquetWriter(str(path), schema) as writer:
        for first in range(0, clips, ROWS_AT_ONCE):
            numbers = range(first, min(clips, first + ROWS_AT_ONCE))
            columns = [
                [f"{n:09d}" for n in numbers],
                [f"s3://datasets/kinetics700/train/{n % 700:03d}/{n:09d}.mp4" for n in numbers],
                [f"somebody does thing number {n % 5000}" for n in numbers],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def stand_in_rows(clips: pa.Table, columns: list[MemberColumns]) -> pa.Table:
    """Rows as the classify stage makes them, the label by the clip's number; every thousandth clip has failed."""
    size = len(clips)
    number = pc.cast(clips["clip_id"], pa.int64()).to_numpy()
    ids = number % len(LABELS)
    failed = pa.array(number % 1000 == 999)
    names = pa.array(LABELS)
    best = np.stack([(ids + i) % len(LABELS) for i in range(5)], axis=1)
    offsets = pa.array(np.arange(size + 1) * 5, pa.int32())
    top = pa.ListArray.from_arrays(offsets, names.take(pa.array(best.ravel())))
    scores = pa.ListArray.from_arrays(offsets, pa.array(np.tile([0.5, 0.2, 0.1, 0.1, 0.05], size), pa.float32()))
    found = {
        "unit": clips["unit"],
        "clip_id": clips["clip_id"],
        "attempts": clips["attempts"],
        "status": pc.if_else(failed, "decode_error", "ok"),
        "label": names.take(pa.array(ids)),
        "label_id": pa.array(ids, pa.int32()),
        "topk_labels": top,
        "topk_scores": scores,
    }
    for member in columns:
        found[f"{member.name}_label"], found[f"{member.name}_topk_labels"] = found["label"], top
        found[f"{member.name}_topk_scores"] = scores
    half = pa.array(np.full(size, 0.5))
    for field in result_schema(columns):
        if field.name in found:
            continue
        if pa.types.is_floating(field.type):
            found[field.name] = half.cast(field.type)
        elif pa.types.is_integer(field.type):
            found[field.name] = pa.array(number % 100).cast(field.type)
        else:
            found[field.name] = pa.nulls(size, field.type)
    return pa.table({f.name: found[f.name] for f in result_schema(columns)}, schema=result_schema(columns))


def decode_at_once(clips: pa.Table, *, pickled_settings: bytes) -> pa.Table:
    return clips


class ClassifyAtOnce:
    def __init__(self, settings: ClassifySettings) -> None:
        self._columns = list(settings.columns)

    def __call__(self, clips: pa.Table) -> pa.Table:
        return stand_in_rows(clips, self._columns)


class Clock(SilentProgress):
    """When rows came back."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, int]] = []

    def add(self, statuses: Mapping[str, int]) -> None:
        self.batches.append((time.perf_counter(), sum(statuses.values())))


def plan_step(config: Config) -> dict[str, float]:
    return {"clips": plan_run(config, progress=SilentProgress()).plan.num_clips}


def label_step(config: Config) -> dict[str, float]:
    """The whole run through Ray Data, with stand-ins for what a worker does with a block."""
    pipeline._decode_block = decode_at_once
    pipeline._ClassifierActor = ClassifyAtOnce  # type: ignore[assignment,misc]
    clock = Clock()
    outcome = run_labeling(config, progress=clock)
    first, last = clock.batches[0][0], clock.batches[-1][0]
    steady = sum(n for _, n in clock.batches[1:]) / (last - first)
    return {"rows": outcome.labeled_now, "steady_rows_per_s": steady, "verified_clips": outcome.num_clips}


def direct_step(config: Config) -> dict[str, float]:
    """What the driver does with the rows of all units, without Ray: read the plan, collect, encode, put."""
    store = open_store(config.run.path, options=StorageOptions())
    plan = require_plan(store)
    schema = prediction_schema(MEMBERS, extras=plan.extra_schema)
    collector = UnitCollector(plan, store=store, schema=schema, owner="direct", metadata={"run": "x" * 4000})
    size = config.resources.batch_size or 512
    for unit in pending_units(store, plan):
        clips = read_unit(store, unit).select(["clip_id"])
        for name, value in (("unit", unit), ("attempts", 1)):
            clips = clips.append_column(name, pa.array([value] * len(clips), pa.int32()))
        for start in range(0, len(clips), size):
            collector.add(stand_in_rows(clips.slice(start, size).combine_chunks(), MEMBERS))
    return {"rows": plan.num_clips}


def verify_step(config: Config) -> dict[str, float]:
    store = open_store(config.run.path, options=StorageOptions())
    verification = verify_run(store, require_plan(store))
    assert verification.ok, str(verification)
    return {"clips": verification.num_clips}


def status_step(config: Config) -> dict[str, float]:
    store = open_store(config.run.path, options=StorageOptions())
    return {"units": float(len(str(run_status(store))) > 0), "clips": require_plan(store).num_clips}


STEPS: dict[str, Callable[[Config], dict[str, float]]] = {
    "plan": plan_step,
    "label": label_step,
    "direct": direct_step,
    "verify": verify_step,
    "status": status_step,
}


def measure(step: str, given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Run a step in a process of its own: wall and CPU seconds without the imports, peak MiB with them."""
    done = subprocess.run(_command(step, given, folder), stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {step:7}" + "".join(f"  {key} {value:,.1f}" for key, value in found.items()), flush=True)
    return found


def kill_on_the_way(given: argparse.Namespace, folder: Path, *, units: int) -> dict[str, int]:
    """Start labeling and SIGKILL driver and workers once so many units are committed; returns inode by file."""
    started = time.perf_counter()
    driver = psutil.Popen(_command("label", given, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    predictions = folder / "run" / "predictions"
    while driver.poll() is None and (not predictions.exists() or len(list(predictions.iterdir())) < units):
        time.sleep(0.05)
    family = [driver, *driver.children(recursive=True)]
    for process in family:
        with_no_such_process_borne(process.kill)
    psutil.wait_procs(family, timeout=30)
    kept = {f.name: f.stat().st_ino for f in predictions.iterdir() if f.suffix == ".parquet"}
    print(f"  killed after {time.perf_counter() - started:.1f} s with {len(kept)} units committed", flush=True)
    return kept


def with_no_such_process_borne(call: Callable[[], None]) -> None:
    try:
        call()
    except psutil.NoSuchProcess:
        return


def _command(step: str, given: argparse.Namespace, folder: Path) -> list[str]:
    sizes = ["--unit-clips", str(given.unit_clips), "--batch-size", str(given.batch_size)]
    return [sys.executable, "-m", "benchmarks.scale_simulation", "--step", step, "--folder", str(folder), *sizes]


def simulate(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """All steps; returns what the limits are about, seconds scaled to a million clips."""
    write_manifest(folder / "manifest.parquet", given.clips)
    save_models(folder)
    plan = measure("plan", given, folder)
    if given.direct:
        labeled = measure("direct", given, folder)
    else:
        units = -(-given.clips // given.unit_clips)
        kept = kill_on_the_way(given, folder, units=max(1, int(given.kill_at * units)))
        labeled = measure("label", given, folder)
        now = {name: (folder / "run" / "predictions" / name).stat().st_ino for name in kept}
        assert now == kept, "a committed unit was written again"
        assert labeled["rows"] == given.clips - sum(
            pq.read_metadata(folder / "run" / "predictions" / name).num_rows for name in kept
        )
    verify, status = measure("verify", given, folder), measure("status", given, folder)
    assert verify["clips"] == plan["clips"] == given.clips
    million = 1_000_000 / given.clips
    return {
        "rows_per_s": labeled["rows"] / labeled["wall_s"],
        "driver_mib": max(plan["peak_mib"], labeled["peak_mib"]),
        "verify_s": verify["wall_s"] * million,
        "status_s": status["wall_s"] * million,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--unit-clips", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=512, help="clips per block; a real run has 16 to 64")
    parser.add_argument("--kill-at", type=float, default=0.3, help="share of the units after which the driver dies")
    parser.add_argument("--direct", action="store_true", help="without Ray, without a kill")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        config = config_of(given.folder, unit_clips=given.unit_clips, batch_size=given.batch_size)
        wall, cpu = time.perf_counter(), time.process_time()
        found = STEPS[given.step](config)
        found |= {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "peak_mib": peak_mib()}
        print(json.dumps(found))
        return
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, ray {ray.__version__}, pyarrow {pa.__version__}")
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="scale-") as name:
        found = simulate(given, Path(name))
    missed = [
        f"{k} {found[k]:,.1f} (limit {limit:,.0f})"
        for k, limit in LIMITS.items()
        if (found[k] < limit if k == "rows_per_s" else found[k] > limit)
    ]
    print(json.dumps({k: round(v, 1) for k, v in found.items()}))
    print("all limits kept" if not missed else "missed: " + ", ".join(missed))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
