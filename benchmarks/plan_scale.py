"""How long planning and resuming take at scale, and how much memory the driver needs.

    python benchmarks/plan_scale.py                      ten million rows of Parquet, 5,000 committed units
    python benchmarks/plan_scale.py --rows 10000000 --format csv

Limits: plan ten million rows in at most 2 GiB and 3 minutes on 2 cores; start over 5,000 committed units in at most
10 seconds; status of 1,000 units in at most 5 seconds; verify a million rows in at most 60 seconds. Exits 1 when one
is missed. Each step is a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from vidcls_batch.config import Config, RunConfig, parse_config
from vidcls_batch.dataset.commit import UnitCollector, pending_units
from vidcls_batch.dataset.plan import make_plan, read_unit, require_plan
from vidcls_batch.dataset.status import run_status
from vidcls_batch.dataset.verify import verify_run
from vidcls_batch.schema import MemberColumns, prediction_schema, reserved_columns, result_schema
from vidcls_batch.storage import open_store, storage_options

MEMBERS = [MemberColumns("videomae"), MemberColumns("timesformer"), MemberColumns("xclip")]
OPTIONS = storage_options(RunConfig(path="-"))
CHUNK = 250_000
LIMITS = {"plan_s": 180.0, "plan_mib": 2048.0, "resume_s": 10.0, "status_s": 5.0, "verify_s": 60.0}


def write_big_manifest(path: Path, rows: int) -> None:
    schema = pa.schema(
        [("clip_id", pa.string()), ("uri", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64()),
         ("caption", pa.string()), ("year", pa.int64())]
    )  # fmt: skip
    make = pq.ParquetWriter if path.suffix == ".parquet" else pa_csv.CSVWriter
    with make(str(path), schema) as writer:
        for first in range(0, rows, CHUNK):
            numbers = np.arange(first, min(rows, first + CHUNK))
            columns = [
                [f"kinetics700/train/{n:09d}" for n in numbers],
                [f"s3://datasets/kinetics700/train/{n % 700:03d}/{n:09d}.mp4" for n in numbers],
                (numbers % 100) * 1.0,
                (numbers % 100) + 10.0,
                [f"somebody does thing number {n % 5000}" for n in numbers],
                2000 + numbers % 25,
            ]
            writer.write_table(pa.table(columns, schema=schema))


def config_of(run: str, manifest: Path) -> Config:
    members = [{"name": m.name, "family": "videomae", "checkpoint": "x"} for m in MEMBERS]
    return parse_config({"run": run, "manifest": str(manifest), "label_set": ["push", "pull"], "members": members})


def plan_step(run: str, manifest: Path) -> None:
    store = open_store(run, options=OPTIONS)
    config = config_of(run, manifest)
    make_plan(config, store=store, options=OPTIONS, reserved=reserved_columns(MEMBERS))


def commit_step(run: str, _manifest: Path) -> None:
    """Commit every unit, its rows in blocks of 16 as the classifier sends them."""
    store = open_store(run, options=OPTIONS)
    plan = require_plan(store)
    schema = prediction_schema(MEMBERS, extras=plan.extra_schema)
    collector = UnitCollector(plan, store=store, schema=schema, owner="benchmark", metadata={"run": "x" * 4000})
    block = result_rows(plan.unit_clips)
    for unit in range(plan.num_units):
        ids = read_unit(store, unit)["clip_id"].combine_chunks()
        rows = block.slice(0, len(ids)).set_column(0, "unit", pa.array([unit] * len(ids), pa.int32()))
        rows = rows.set_column(1, "clip_id", ids)
        for start in range(0, len(ids), 16):
            collector.add(rows.slice(start, 16))


def result_rows(size: int) -> pa.Table:
    chooser = np.random.default_rng(0)
    columns: list[object] = []
    for field in result_schema(MEMBERS):
        if pa.types.is_list(field.type):
            values = chooser.random(size * 5)
            texts = [f"label {v:.2f}" for v in values]
            inner = pa.array(texts if pa.types.is_string(field.type.value_type) else values, field.type.value_type)
            columns.append(pa.ListArray.from_arrays(pa.array(np.arange(size + 1) * 5, pa.int32()), inner))
        elif field.name == "status":
            columns.append(["ok"] * size)
        elif pa.types.is_string(field.type):
            columns.append([f"text {v:.5f}" for v in chooser.random(size)])
        else:
            columns.append(pa.array(chooser.random(size) * 100).cast(field.type, safe=False))
    return pa.table(columns, schema=result_schema(MEMBERS))


def resume_step(run: str, manifest: Path) -> None:
    """What a driver does before its first clip: confirm the plan, find out what is pending."""
    plan_step(run, manifest)
    store = open_store(run, options=OPTIONS)
    print(len(pending_units(store, require_plan(store))), "units pending", file=sys.stderr)


def status_step(run: str, _manifest: Path) -> None:
    print(run_status(open_store(run, options=OPTIONS)), file=sys.stderr)


def verify_step(run: str, _manifest: Path) -> None:
    store = open_store(run, options=OPTIONS)
    print(verify_run(store, require_plan(store)), file=sys.stderr)


STEPS: dict[str, Callable[[str, Path], None]] = {
    "plan": plan_step,
    "commit": commit_step,
    "resume": resume_step,
    "status": status_step,
    "verify": verify_step,
}


def measure(step: str, run: str, manifest: Path) -> dict[str, float]:
    """Run a step in a process of its own: wall and CPU seconds without the imports, peak MiB with them."""
    command = [sys.executable, __file__, "--step", step, "--run", run, "--manifest", str(manifest)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    print(f"  {step:8} {found['wall_s']:7.1f} s   CPU {found['cpu_s']:7.1f} s   peak {found['peak_mib']:6.0f} MiB")
    return found


def peak_mib() -> float:
    # Not ru_maxrss: that one survives exec and shows the parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def run_step(step: str, run: str, manifest: Path) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    STEPS[step](run, manifest)
    found = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    found["peak_mib"] = peak_mib()
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--units", type=int, default=5000, help="committed units for the resume")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default: a temporary folder")
    parser.add_argument(
        "--run", default=None, help="where the run folders go, e.g. s3://bucket/scale; default: --folder"
    )
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--manifest", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        run_step(given.step, given.run, given.manifest)
        return
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} CPUs, pyarrow {pa.__version__}"
    )
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="plan-scale-") as name:
        folder = Path(name)
        runs = given.run or name
        big = folder / f"big.{given.format}"
        write_big_manifest(big, given.rows)
        print(f"{given.rows:,} rows of {given.format} ({big.stat().st_size / 1e6:.0f} MB), units of 1,024:")
        plan = measure("plan", f"{runs}/big-run", big)
        small = folder / "small.parquet"
        clips = given.units * 1024
        write_big_manifest(small, clips)
        print(f"{given.units:,} units, {clips:,} clips:")
        measure("plan", f"{runs}/run", small)
        commit = measure("commit", f"{runs}/run", small)
        print(f"           {clips / commit['wall_s']:,.0f} rows/s, {clips / commit['cpu_s']:,.0f} rows per CPU second")
        resume, status, verify = (measure(s, f"{runs}/run", small) for s in ("resume", "status", "verify"))
    measured = {
        "plan_s": plan["wall_s"],
        "plan_mib": plan["peak_mib"],
        "resume_s": resume["wall_s"],
        "status_s": status["wall_s"] * 1000 / given.units,
        "verify_s": verify["wall_s"] * 1_000_000 / clips,
    }
    missed = [f"{k} {measured[k]:.1f} (limit {LIMITS[k]:.0f})" for k in LIMITS if measured[k] > LIMITS[k]]
    print("all limits kept" if not missed else "missed: " + ", ".join(missed))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
