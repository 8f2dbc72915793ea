"""Rebuild the demo's checkpoints and measure them: python configs/demo/rebuild_checkpoints.py [--measure-only]

Writes 8,360 clips to runs/demo_training, trains the three models one after another and prints the figures of
docs/demo.md.
"""

import argparse
import dataclasses
import os
from pathlib import Path

import numpy as np

from vidcls_batch.config import Config, load_config
from vidcls_batch.label_sets import load_label_set
from vidcls_batch.labeling.ensemble import weighted_mean
from vidcls_batch.models.registry import describe_member
from vidcls_batch.synthetic.captions import UNSEEN_NAMES
from vidcls_batch.synthetic.dataset import Pairs, write_dataset
from vidcls_batch.training.clip_cache import CachedClips, cache_clips
from vidcls_batch.training.config import load_finetune_config
from vidcls_batch.training.evaluation import accuracy, choose_weights, member_probabilities
from vidcls_batch.training.finetune import finetune
from vidcls_batch.types import FrameRequest

DATA = Path("runs/demo_training")
JOBS = ("finetune_videomae", "finetune_timesformer", "finetune_xclip")


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Clips, seed, and which pairs of a colour and a motion."""

    num_clips: int
    seed: int
    pairs: Pairs = "any"


DATA_SETS = {
    "train": DataSet(6600, seed=1),
    "validation": DataSet(660, seed=2),  # the ensemble's weights
    "test": DataSet(660, seed=3),  # the figures
    "unseen": DataSet(440, seed=4, pairs="unseen"),  # the zero-shot figures
}


def main() -> None:
    """Write the clips that are not there, train unless told not to, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure-only", action="store_true", help="take the checkpoints as they are")
    measure_only = parser.parse_args().measure_only
    for name, data in DATA_SETS.items():
        if not (DATA / name / "manifest.csv").exists() and not (measure_only and name == "train"):
            workers = os.cpu_count() or 1
            write_dataset(DATA / name, num_clips=data.num_clips, seed=data.seed, pairs=data.pairs, num_workers=workers)
    if not measure_only:
        for job in JOBS:
            print(finetune(load_finetune_config(f"configs/demo/{job}.yaml")))
    measure(load_config("configs/demo.yaml"))


def measure(config: Config) -> None:
    """Print each member's accuracy, the weights chosen on the validation clips, and the zero-shot accuracy."""
    labels = load_label_set(config.label_set).labels
    members = {member.name: member for member in config.members}
    scores, truths = {}, {}
    for name in ("validation", "test"):
        clips = _clips(config, name)
        truths[name] = np.array([labels.index(label) for label in clips.rows.true_label])
        scores[name] = [member_probabilities(m, clips, labels=labels) for m in config.members]
    chosen = choose_weights(scores["validation"], truths["validation"])
    print(f"weights chosen on the validation clips: {dict(zip(members, chosen, strict=True))}")
    for member, probabilities in zip(members, scores["test"], strict=True):
        print(f"{member:12} {accuracy(probabilities, truths['test']):.3f}")
    equal = tuple(1.0 for _ in members)
    in_config = tuple(config.ensemble.weights.get(member, 1.0) for member in members)
    for title, weights in (("equal", equal), ("chosen", chosen), ("in the config", in_config)):
        print(f"ensemble, {title}: {accuracy(weighted_mean(scores['test'], weights), truths['test']):.3f}")
    unseen = _clips(config, "unseen")
    answers = np.array([UNSEEN_NAMES.index(name) for name in unseen.rows.colour_caption])
    zero_shot = members["xclip"].model_copy(update={"prompts": ("{}",)})
    right = accuracy(member_probabilities(zero_shot, unseen, labels=UNSEEN_NAMES), answers)
    print(
        f"xclip on {len(UNSEEN_NAMES)} names it was never trained on: {right:.3f}, chance {1 / len(UNSEEN_NAMES):.3f}"
    )


def _clips(config: Config, name: str) -> CachedClips:
    spec = describe_member(config.members[0], labels=load_label_set(config.label_set).labels).input
    request = FrameRequest((spec.sampling,), height=spec.height, width=spec.width)
    return cache_clips(
        DATA / name / "manifest.csv", request=request, folder=DATA / "frames", threads=os.cpu_count() or 1
    )


if __name__ == "__main__":
    main()
