"""How fast `vidcls relabel` is: a million rows of five members, and a thousand new classes over stored embeddings.

python -m benchmarks.relabel --clips 1000000    # about 6 GB of disk; most of the time goes into writing the source
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.evidence_run import RandomMember, random_evidence, write_evidence_run
from vidcls_batch import relabel_members
from vidcls_batch.config import Config, parse_config, resolved
from vidcls_batch.progress import SilentProgress
from vidcls_batch.relabel import relabel_run
from vidcls_batch.storage import StorageOptions

UNIT_CLIPS = 4096
DIM = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rules", nargs="*", default=["weighted_mean", "log_pool"])
    parser.add_argument("--only", choices=["members", "zero-shot"])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.only != "zero-shot":
            _five_members(Path(folder), options)
        if options.only != "members":
            _zero_shot(Path(folder), options)


def _five_members(folder: Path, options: argparse.Namespace) -> None:
    labels = tuple(f"label {i:03d}" for i in range(400))
    members = tuple(RandomMember(f"m{i}", labels=labels) for i in range(5))
    source = _written(folder / "five", options.clips, labels, members)
    for rule in options.rules:
        _timed(
            source, folder / f"five-{rule}", options, what=f"5 members x 400 classes, {rule}", ensemble={"rule": rule}
        )


def _zero_shot(folder: Path, options: argparse.Namespace) -> None:
    """The checkpoint is a matrix: what counts is the arithmetic after the text tower, which runs once."""
    labels = tuple(f"label {i:03d}" for i in range(10))
    source = _written(folder / "zero", options.clips, labels, (RandomMember("clip", embedding_dim=DIM),))
    texts = torch.nn.functional.normalize(torch.randn(1000, DIM, generator=torch.Generator().manual_seed(0)), dim=-1)
    relabel_members.load_text_scorer = lambda *_, **__: (  # type: ignore[assignment]
        lambda embedding, context: torch.nn.functional.normalize(embedding, dim=-1) @ texts.T * 100
    )
    new = [f"class {i:04d}" for i in range(1000)]
    _timed(source, folder / "zero-new", options, what="1,000 new classes over CLIP embeddings", label_set=new)


def _written(folder: Path, clips: int, labels: tuple[str, ...], members: tuple[RandomMember, ...]) -> Config:
    started = time.perf_counter()
    config = write_evidence_run(
        folder,
        num_clips=clips,
        unit_clips=UNIT_CLIPS,
        labels=labels,
        members=members,
        evidence=random_evidence(members, labels=labels),
    )
    print(f"source of {clips:,} rows written in {time.perf_counter() - started:.0f} s", flush=True)
    return config


def _timed(source: Config, out: Path, options: argparse.Namespace, *, what: str, **changes: object) -> None:
    output = resolved(source)["output"] | {"member_logits": False, "member_embeddings": False}
    config = parse_config(resolved(source) | {"run": str(out), "output": output} | changes)
    started, cpu = time.perf_counter(), time.process_time()
    relabel_run(
        source.run.path,
        config=config,
        options=StorageOptions(),
        progress=SilentProgress(),
        num_workers=options.workers,
    )
    facts = {
        "what": what,
        "clips": options.clips,
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mib_of_process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "bytes_per_row": round(sum(f.stat().st_size for f in (out / "predictions").iterdir()) / options.clips),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
