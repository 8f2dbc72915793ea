"""The decode stage of a run against its decoder alone: `python benchmarks/decode_stage.py FOLDER_OF_CLIPS`.

The stage fetches each file (ahead, in threads), hashes it, decodes it in the sandbox and builds the Arrow block; the
decoder alone gets the same bytes from memory. Both on one core at a time, taking turns; median of the repetitions, wall
clock and CPU time of all processes.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from vidcls_batch.stages.decode import CLIPS, BlockDecoder, DecodeSettings
from vidcls_batch.stages.fetch import FetchSettings
from vidcls_batch.storage import StorageOptions
from vidcls_batch.types import DecodeLimits, FrameRequest, Sampling
from vidcls_batch.video.sandbox import SandboxedDecoder

REQUEST = FrameRequest((Sampling(16),), 224, 224)
LIMITS = DecodeLimits()
BLOCK = 16


def block_of(paths: list[Path]) -> pa.Table:
    rows = [
        {"unit": 0, "clip_id": str(i), "uri": str(paths[i % len(paths)]), "start_s": None, "end_s": None, "attempts": 1}
        for i in range(BLOCK)
    ]
    # Neighbours with one uri would share a fetch.
    assert len(paths) > 1, "give at least two files"
    return pa.Table.from_pylist(rows, schema=CLIPS)


def spent() -> float:
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def measure(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), spent()
    work()
    return time.perf_counter() - wall, spent() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    block = block_of(arguments.files)
    sources = [Path(uri).read_bytes() for uri in block["uri"].to_pylist()]
    out = np.zeros(REQUEST.frames_shape, np.uint8)
    settings = DecodeSettings(
        request=REQUEST, limits=LIMITS, backend="auto", fetch=FetchSettings(), storage=StorageOptions()
    )
    with BlockDecoder(settings) as stage, SandboxedDecoder(REQUEST, limits=LIMITS) as alone:

        def decode_alone() -> None:
            for source in sources:
                alone.decode(source, out=out)

        decode_alone()
        stage(block)
        pairs = [(measure(decode_alone), measure(lambda: stage(block))) for _ in range(arguments.repetitions)]
    for number, name in enumerate(("wall clock", "CPU time")):
        bare = statistics.median(a[number] for a, _ in pairs) / BLOCK * 1000
        whole = statistics.median(b[number] for _, b in pairs) / BLOCK * 1000
        share = statistics.median(a[number] / b[number] for a, b in pairs)
        print(f"{name}: decoder alone {bare:.1f} ms a clip, stage {whole:.1f} ms; the stage reaches {share:.3f} of it")


if __name__ == "__main__":
    main()
