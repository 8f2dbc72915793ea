"""A classifier's memory and speed on a CPU over a long time, by how it gets its memory (`resources.host_memory`).

    python benchmarks/host_memory.py --family slowfast_r50 --seconds 300 [--host-memory kept]

Blocks of varying size, up to `--clips`, go through the family's member; a line per 30 s says how much the process holds
(RSS) and what a clip took of CPU time since the last line. Weights are random: neither depends on them.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import torch

sys.path.insert(0, str(Path(__file__).parent))
from models import LABELS, save_checkpoint

from vidcls_batch.config import HostMemory
from vidcls_batch.models.registry import load_member
from vidcls_batch.preflight.memory import resident_bytes
from vidcls_batch.stages.host_memory import set_host_memory

LINE_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="+", default=["slowfast_r50"], help="members that take turns")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clips", type=int, default=4, help="of the largest block")
    parser.add_argument("--frame-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--host-memory", choices=get_args(HostMemory), default="huge_pages")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    set_host_memory(arguments.host_memory)
    members = []
    for family in arguments.family:
        with tempfile.TemporaryDirectory() as folder:
            members.append(load_member(save_checkpoint(family, Path(folder)), labels=LABELS, device="cpu"))
    chooser = random.Random(0)
    side = arguments.frame_size
    print(f"{', '.join(arguments.family)}, host memory {arguments.host_memory}, torch {torch.__version__}")
    print(f"loaded: RSS {resident_bytes() >> 20:,} MiB", flush=True)
    end, clips_in_all = time.monotonic() + arguments.seconds, 0
    while time.monotonic() < end:
        line, clips, cpu, faults = time.monotonic(), 0, time.process_time(), page_faults()
        largest = 0
        while time.monotonic() < min(line + LINE_S, end):
            count = chooser.randint(1, arguments.clips)
            for member in members:
                shape = (count, member.input.sampling.num_slots, side, side, 3)
                member.logits(torch.randint(0, 256, shape, dtype=torch.uint8))
            clips += count
            largest = max(largest, resident_bytes())
        clips_in_all += clips
        seconds, faults = (time.process_time() - cpu) / clips, (page_faults() - faults) // clips
        print(
            f"{clips_in_all:5d} clips: RSS {largest >> 20:,} MiB, most ever "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} MiB, "
            f"{seconds:.3f} s of CPU and {faults:,} page faults a clip",
            flush=True,
        )


def page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    main()
