"""Clips per second of each family through its member, against the same network called bare on ready tensors.

    python benchmarks/models.py [--family videomae ...] [--device cpu] [--json FILE]

`bare`: the network on normalised pixels and log-mel pictures already in its dtype, nothing else; of transformers'
models the one that transformers itself loads (`get_image_features` and the like, without any text, where zero-shot).
`member`: `Member.logits` on uint8 frames and samples of sound, against 400 labels.
`preprocessing`: the share of the member's time that turns frames into pixels and sound into pictures. Times are process
CPU time on the CPU (so that a busy machine does not change the ratio) and wall time on CUDA. Rounds of both are
interleaved; medians are given. Weights are random: speed does not depend on them. On a CPU both get memory as
classifiers do by default; `--host-memory`: in another way (`resources.host_memory`). `page faults` are of one call of
each: what glibc gives back to the kernel after a large tensor has to be had anew for the next one.
"""

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
from bare_models import LABELS, bare_call, save_checkpoint, to_picture

from vidcls_batch.config import HostMemory
from vidcls_batch.models.base import Sound
from vidcls_batch.models.member import LoadedMember
from vidcls_batch.models.preprocess import preprocess
from vidcls_batch.models.registry import load_member
from vidcls_batch.stages.host_memory import set_host_memory


@dataclass(frozen=True)
class Row:
    """One family's figures."""

    family: str
    precision: str
    clips: int
    bare_clips_per_s: float
    member_clips_per_s: float
    ratio: float
    preprocessing_share: float
    bare_page_faults: int
    member_page_faults: int
    parameters_m: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", nargs="+", default=["videomae", "timesformer", "vivit", "x3d_s", "slow_r50"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--clips", type=int, default=1, help="clips in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frame-size", type=int, default=256, help="side of the decoded frames")
    parser.add_argument("--host-memory", choices=get_args(HostMemory), default="huge_pages", help="of both, on a CPU")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cpu":
        set_host_memory(arguments.host_memory)
    rows = [measure(family, arguments) for family in arguments.family]
    print_table(rows, arguments)
    if arguments.json:
        facts = {"machine": platform.machine(), "torch": torch.__version__, "threads": arguments.threads}
        facts["host memory"] = arguments.host_memory
        arguments.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def measure(family: str, arguments: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        config = save_checkpoint(family, Path(folder))
        config = config.model_copy(update={"precision": arguments.precision})
        member = load_member(config, labels=LABELS, device=arguments.device)
        sound = noise(member, clips=arguments.clips)
        paint = has_sound = picture = None
        if sound is not None:
            paint, has_sound = to_picture(family, Path(folder)), sound.lengths > 0
            picture = paint(sound).to(member.dtype)
        network = bare_call(family, Path(folder), member, picture=picture, has_sound=has_sound)
    frames = pixels = None
    if member.input is not None:
        shape = (arguments.clips, member.input.sampling.num_slots, arguments.frame_size, arguments.frame_size, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8).to(arguments.device)
        pixels = to_pixels(member, frames)

    def prepare() -> None:
        if frames is not None:
            to_pixels(member, frames)
        if paint is not None and sound is not None:
            paint(sound)

    calls = [lambda: network(pixels), lambda: member.logits(frames, sound), prepare]
    bare, whole, before = interleaved(calls, rounds=arguments.rounds, device=arguments.device)
    return Row(
        family=family,
        precision=str(member.dtype).removeprefix("torch."),
        clips=arguments.clips,
        bare_clips_per_s=arguments.clips / bare,
        member_clips_per_s=arguments.clips / whole,
        ratio=bare / whole,
        preprocessing_share=before / whole,
        bare_page_faults=page_faults(calls[0]),
        member_page_faults=page_faults(calls[1]),
        parameters_m=member.record.num_parameters / 1e6,
    )


def noise(member: LoadedMember, *, clips: int) -> Sound | None:
    """As much sound for each clip as the member hears."""
    if member.sound is None:
        return None
    samples = (torch.rand(clips, member.sound.num_samples) * 2 - 1).to(member.device)
    lengths = torch.full((clips,), member.sound.num_samples, device=member.device)
    return Sound(samples, lengths, member.sound.sample_rate)


def to_pixels(member: LoadedMember, frames: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        pixels = preprocess(frames.flatten(0, 1), member.input, dtype=member.dtype)
        return pixels.unflatten(0, frames.shape[:2])


def interleaved(calls: Sequence[Callable[[], object]], *, rounds: int, device: str) -> list[float]:
    """Median seconds of each call; one warm-up each, then rounds of all, every other one backwards, so that drift and
    what the call before left in the allocator hit them alike.
    """
    times: list[list[float]] = [[] for _ in calls]
    for round_ in range(rounds + 1):
        for call, seconds in list(zip(calls, times, strict=True))[:: -1 if round_ % 2 else 1]:
            started = now(device)
            with torch.inference_mode():
                call()
            elapsed = now(device) - started
            if round_ > 0:
                seconds.append(elapsed)
    return [statistics.median(seconds) for seconds in times]


def page_faults(call: Callable[[], object]) -> int:
    """Of one call: pages of memory that the kernel had to give it anew, 4 KB each."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.inference_mode():
        call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.process_time() if device == "cpu" else time.perf_counter()


def print_table(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    print(
        f"{arguments.device}, torch {torch.__version__}, {arguments.threads} threads, frames of {arguments.frame_size}x"
        f"{arguments.frame_size}, host memory {arguments.host_memory} for both\n\n"
        "| family | parameters | precision | bare clips/s | member clips/s | member / bare | preprocessing "
        "| page faults, bare, member |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for row in rows:
        print(
            f"| {row.family} | {row.parameters_m:.1f} M | {row.precision} | {row.bare_clips_per_s:.2f} | "
            f"{row.member_clips_per_s:.2f} | {row.ratio:.3f} | {row.preprocessing_share:.1%} | "
            f"{row.bare_page_faults:,}, {row.member_page_faults:,} |"
        )


if __name__ == "__main__":
    main()
