"""Fused audio-visual models against frames alone, on clips that only sound tells apart.

    python benchmarks/sound_fusion.py

Six labels, two motions by three sounds. Chance is 16.7 %; who only sees is right at most 33.3 % of the time, who only
hears 50 %. Models from scratch, small enough for two cores, trained by the same job as any other (`jobs/finetune.py`).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from vidcls_batch.synthetic.sounding import SOUNDING_LABELS, write_sounding_dataset
from vidcls_batch.training.config import FinetuneConfig
from vidcls_batch.training.finetune import finetune

TRANSFORMER = {
    "patch_size": 16,
    "tubelet_size": 2,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
SOUND = {"sound_frames": 192, "num_mel_bins": 64, "sound_patch_size": 16}
MODELS = {
    "frames alone": ("videomae", TRANSFORMER),
    "concatenation": ("av_transformer", TRANSFORMER | SOUND | {"fusion": "concatenation"}),
    "cross-attention": ("av_transformer", TRANSFORMER | SOUND | {"fusion": "cross-attention"}),
}


def job(name: str, *, train: Path, test: Path, folder: Path, steps: int, seed: int = 0) -> FinetuneConfig:
    """The fine-tuning job of one of MODELS."""
    family, architecture = MODELS[name]
    return FinetuneConfig.model_validate(
        {
            "output": {"path": str(folder / name)},
            "model": {
                "family": family,
                "sampling": {"rule": "uniform"},
                "input": {"num_frames": 8, "size": 48},
                "architecture": architecture,
            },
            "label_set": list(SOUNDING_LABELS),
            "data": {"train": str(train), "evaluation": str(test), "cache": str(folder / "cache")},
            "optimization": {
                "steps": steps,
                "batch_size": 32,
                "learning_rate": 1e-3,
                "warmup_steps": max(1, steps // 10),
                "seed": seed,
            },
        }
    )


def main() -> None:
    """Train each model on the same clips and print how often it is right on others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=480, help="clips to learn from")
    parser.add_argument("--test", type=int, default=240, help="other clips")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        train = write_sounding_dataset(folder / "train", num_clips=arguments.train, seed=1)
        test = write_sounding_dataset(folder / "test", num_clips=arguments.test, seed=2)
        found = {}
        for name in arguments.models:
            started = time.perf_counter()
            result = finetune(job(name, train=train, test=test, folder=folder, steps=arguments.steps))
            found[name] = {"accuracy": result.accuracy, "seconds": round(time.perf_counter() - started, 1)}
            print(f"{name:<16} {result.accuracy:6.1%}   {found[name]['seconds']:.0f} s", flush=True)
    print(json.dumps({"train": arguments.train, "test": arguments.test, "steps": arguments.steps, "models": found}))


if __name__ == "__main__":
    main()
