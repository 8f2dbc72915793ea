"""What the shared short side costs the demo's members: their accuracy on clips decoded at sides of others' wishes.

    python -m benchmarks.short_side --clips 220 --sides 56 64 80 --folder /tmp/short_side

A run decodes each clip once, at the largest short side that a member wants; members that want less get those frames
scaled down once more on their device. The first side is the members' own (56). Generated clips that nothing was trained
or chosen on; decoding is the planned one, members are loaded as in a run.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from vidcls_batch.config import load_config
from vidcls_batch.label_sets import load_label_set
from vidcls_batch.models.member import LoadedMember
from vidcls_batch.models.registry import load_member
from vidcls_batch.synthetic.dataset import write_dataset
from vidcls_batch.training.clip_cache import CachedClips, cache_clips
from vidcls_batch.types import FrameRequest

SEED = 70_000  # of clips that nothing was trained or chosen on
BATCH = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=220)
    parser.add_argument("--sides", type=int, nargs="+", default=[56, 64, 80])
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    manifest = arguments.folder / f"clips-{arguments.clips}" / "manifest.csv"
    if not manifest.exists():
        write_dataset(manifest.parent, num_clips=arguments.clips, seed=SEED, num_workers=1)
    config = load_config("configs/demo.yaml")
    labels = load_label_set(config.label_set).labels
    for settings in config.members:
        member = load_member(settings, labels=labels, device="cpu")
        assert member.input is not None
        found = {}
        for side in arguments.sides:
            request = FrameRequest(samplings=(member.input.sampling,), height=side, width=side)
            clips = cache_clips(manifest, request=request, folder=arguments.folder / "frames")
            found[side] = round(accuracy(member, clips), 4)
        print(
            json.dumps({"member": settings.name, "clips": arguments.clips, "accuracy by short side": found}), flush=True
        )


def accuracy(member: LoadedMember, clips: CachedClips) -> float:
    right = []
    for start in range(0, len(clips.rows), BATCH):
        frames = torch.from_numpy(np.array(clips.frames[start : start + BATCH]))
        best = member.logits(frames).mean(dim=1).argmax(dim=-1)
        said = [member.labels[index] for index in best.tolist()]
        right += [a == b for a, b in zip(said, clips.rows["true_label"][start : start + BATCH], strict=True)]
    return float(np.mean(right))


if __name__ == "__main__":
    main()
