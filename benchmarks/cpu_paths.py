"""Ways to run one member on the CPU, against eager float32: precision, layout, torch.compile, ONNX Runtime, OpenVINO.

    python benchmarks/cpu_paths.py [--family videomae] [--threads 1] [--rounds 3] [--json FILE]

The network alone on ready pixels, random weights at the published size. Rounds of all ways are interleaved, medians of
process CPU time per clip (of wall time with several threads). `difference`: of the logits from eager float32's, as a
share of those logits' standard deviation. A way that does not run here is reported with its reason.
"""

import argparse
import json
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from models import LABELS, interleaved, save_checkpoint

from vidcls_batch.config import MemberConfig
from vidcls_batch.errors import VidclsError
from vidcls_batch.models.export import ExportSource, export_checkpoint
from vidcls_batch.models.member import LoadedMember
from vidcls_batch.models.registry import load_member

# name -> the member's settings, and the family that runs the exported copy (None: the checkpoint itself).
WAYS: dict[str, tuple[dict[str, str], str | None]] = {
    "eager fp32": ({}, None),
    "eager fp32, channels_last_3d": ({"layout": "channels_last_3d"}, None),
    "eager bf16": ({"precision": "bf16"}, None),
    "torch.compile fp32": ({"compile": "default"}, None),
    "torch.compile bf16": ({"compile": "default", "precision": "bf16"}, None),
    "ONNX Runtime fp32": ({}, "onnx"),
    "OpenVINO fp32": ({}, "openvino"),
    "OpenVINO bf16": ({"precision": "bf16"}, "openvino"),
}


@dataclass(frozen=True)
class Row:
    """One way's figures."""

    way: str
    seconds_per_clip: float | None
    against_eager: float | None
    difference: float | None
    error: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="videomae")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, default=1, help="clips in a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(arguments)
    print(f"{arguments.family}, {cpu_name()}, torch {torch.__version__}, {arguments.threads} thread(s)\n")
    print("| way | s per clip | against eager fp32 | difference of logits |\n| --- | --- | --- | --- |")
    for row in rows:
        if row.error is not None:
            print(f"| {row.way} | - | - | {row.error} |")
        else:
            print(f"| {row.way} | {row.seconds_per_clip:.2f} | {row.against_eager:.2f}x | {row.difference:.1e} |")
    if arguments.json:
        facts = {"cpu": cpu_name(), "torch": torch.__version__, "threads": arguments.threads}
        arguments.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def measure(arguments: argparse.Namespace) -> list[Row]:
    members: dict[str, LoadedMember] = {}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = save_checkpoint(arguments.family, folder)
        for way in dict.fromkeys(("eager fp32", *arguments.ways)):
            settings, runtime = WAYS[way]
            try:
                members[way] = load(config, settings, runtime, folder)
            except VidclsError as error:
                errors[way] = str(error).split(". ")[0]
        eager = members["eager fp32"]
        shape = (eager.input.sampling.num_frames, 3, eager.input.height, eager.input.width)
        pixels = torch.randn(arguments.clips, *shape, generator=torch.Generator().manual_seed(0))
        inputs = {way: pixels.to(member.dtype) for way, member in members.items()}
        with torch.inference_mode():
            expected = eager.network(pixels).logits
            differences = {
                way: float((member.network(inputs[way]).logits.float() - expected).abs().max() / expected.std())
                for way, member in members.items()
            }
        calls = [lambda m=member, x=inputs[way]: m.network(x) for way, member in members.items()]
        device = "cpu" if arguments.threads == 1 else "wall"
        times = dict(zip(members, interleaved(calls, rounds=arguments.rounds, device=device), strict=True))
    rows = [
        Row(way, times[way] / arguments.clips, times["eager fp32"] / times[way], differences[way]) for way in members
    ]
    return rows + [Row(way, None, None, None, error) for way, error in errors.items()]


def load(config: MemberConfig, settings: dict[str, str], runtime: str | None, folder: Path) -> LoadedMember:
    if runtime is None:
        return load_member(config.model_copy(update=settings), labels=LABELS, device="cpu")
    file = folder / "exported" / "copy.onnx"
    if not file.exists():
        (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
        source = ExportSource(
            checkpoint=config.checkpoint,
            family=config.family,
            labels=str(folder / "labels.txt") if config.labels else None,
        )
        export_checkpoint(source, file, to="onnx")
    exported = MemberConfig(name="m", family=runtime, checkpoint=str(file), **settings)
    return load_member(exported, labels=LABELS, device="cpu")


def cpu_name() -> str:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in flags.splitlines() if line.startswith("model name")]
    units = [unit for unit in ("avx512_bf16", "amx_bf16", "amx_tile") if unit in flags.split()]
    return f"{names[0] if names else platform.machine()} ({', '.join(units) or 'no bf16 units'})"


if __name__ == "__main__":
    main()
