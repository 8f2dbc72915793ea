"""VideoMAE-B on a GPU: our classifier stage on frames in host memory, against the card and against bare loops.

    python benchmarks/gpu/videomae.py [--device cuda] [--blocks 20] [--compile reduce-overhead] [--json FILE]

Blocks of 32 clips of 16 frames of 224x224 uint8 go through `BlockClassifier` as in a run. `matrix rate`: a bf16 product
of 8192x8192 matrices, the rate that "percent of the card" refers to; the network's multiply-adds are counted by torch.
`bare`: transformers' own model on pixels that are already on the card, one batch after the other. Without a GPU it says
so and ends with status 0. Aims: >= 50 % of the matrix rate, >= 95 % busy, >= 4x bare fp32, >= 1.3x bare bf16.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models import LABELS, save_checkpoint

from vidcls_batch.config import MemberConfig
from vidcls_batch.label_sets import plain_label_set
from vidcls_batch.labeling.labeler import LabelingSettings
from vidcls_batch.labeling.mapping import map_labels
from vidcls_batch.schema import DECODED, ROUTE, MemberColumns
from vidcls_batch.stages.classify import BlockClassifier, ClassifySettings
from vidcls_batch.stages.decode import FRAMES
from vidcls_batch.storage import StorageOptions
from vidcls_batch.types import FrameRequest, Sampling

FRAMES_PER_CLIP, SIZE, CLIPS = 16, 224, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cpu runs two tiny blocks, to see that the script works")
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--compile", default="off", choices=["off", "default", "reduce-overhead"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: no CUDA device here")
        return
    figures = measure(arguments)
    for name, value in figures.items():
        print(f"{name:<32} {value:.4g}" if isinstance(value, float) else f"{name:<32} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure(arguments: argparse.Namespace) -> dict[str, float | str]:
    cuda = arguments.device.startswith("cuda")
    clips = CLIPS if cuda else 1
    with tempfile.TemporaryDirectory() as folder:
        config = save_checkpoint("videomae", Path(folder)).model_copy(update={"compile": arguments.compile})
        classifier = BlockClassifier(settings(config, arguments.device))
        bare = {
            "fp32": bare_rate(folder, torch.float32, arguments.device, clips),
            "bf16": bare_rate(folder, torch.bfloat16, arguments.device, clips),
        }
    blocks = [block(clips, seed) for seed in range(4)]
    classifier(blocks[0])  # the first call loads kernels
    classifier._scoring_s, classifier._first_block_at = 0.0, None
    started = time.perf_counter()
    for number in range(arguments.blocks):
        classifier(blocks[number % len(blocks)])
    rate = clips * arguments.blocks / (time.perf_counter() - started)
    usage = classifier.usage()
    flops = flops_per_clip()
    matrix = matrix_rate(arguments.device, 8192 if cuda else 512)
    return {
        "device": torch.cuda.get_device_name(arguments.device) if cuda else "cpu",
        "torch": torch.__version__,
        "clips/s": rate,
        "share of the bf16 matrix rate": rate * flops / matrix,
        "bf16 matrix rate, TFLOP/s": matrix / 1e12,
        "busy share": usage.scoring_s / usage.alive_s,
        "bare fp32, clips/s": bare["fp32"],
        "bare bf16, clips/s": bare["bf16"],
        "against bare fp32": rate / bare["fp32"],
        "against bare bf16": rate / bare["bf16"],
    }


def settings(config: MemberConfig, device: str) -> ClassifySettings:
    label_set = plain_label_set("k400", LABELS)
    return ClassifySettings(
        members=(config,),
        columns=(MemberColumns("m"),),
        labeling=LabelingSettings(
            labels=LABELS, maps=(map_labels(LABELS, label_set=label_set),), weights=(1.0,), top_k=5
        ),
        request=FrameRequest(
            samplings=(Sampling(num_frames=FRAMES_PER_CLIP, rule="stride", stride=4),), height=SIZE, width=SIZE
        ),
        storage=StorageOptions(),
        device=device,
        num_threads=1,
    )


def block(clips: int, seed: int) -> pa.Table:
    frames = np.random.default_rng(seed).integers(0, 256, (clips, FRAMES_PER_CLIP, SIZE, SIZE, 3), np.uint8)
    rows = [{"unit": 0, "clip_id": f"clip{i}", "status": "ok", "attempts": 1} for i in range(clips)]
    decoded = pa.Table.from_pylist(rows, schema=pa.schema([*ROUTE, *DECODED]))
    return decoded.append_column(FRAMES, pa.FixedShapeTensorArray.from_numpy_ndarray(frames))


def bare_rate(folder: str, dtype: torch.dtype, device: str, clips: int) -> float:
    from transformers import VideoMAEForVideoClassification

    model = VideoMAEForVideoClassification.from_pretrained(folder, dtype=dtype).to(device).eval()
    pixels = torch.randn(clips, FRAMES_PER_CLIP, 3, SIZE, SIZE, device=device, dtype=dtype)
    with torch.inference_mode():
        return clips / seconds(lambda: model(pixels).logits.cpu(), rounds=10 if device != "cpu" else 1)


def flops_per_clip() -> float:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    with torch.device("meta"), FlopCounterMode(display=False) as counted, torch.no_grad():
        model = VideoMAEForVideoClassification(VideoMAEConfig(num_labels=len(LABELS))).eval()
        model(torch.empty(1, FRAMES_PER_CLIP, 3, SIZE, SIZE))
    return float(counted.get_total_flops())


def matrix_rate(device: str, size: int) -> float:
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def product() -> object:
        result = left @ right
        return torch.cuda.synchronize() if device != "cpu" else result

    return 2 * size**3 / seconds(product, rounds=20)


def seconds(call: Callable[[], object], *, rounds: int) -> float:
    """Of one call, the mean over `rounds` after one that does not count."""
    call()
    started = time.perf_counter()
    for _ in range(rounds):
        call()
    return (time.perf_counter() - started) / rounds


if __name__ == "__main__":
    main()
