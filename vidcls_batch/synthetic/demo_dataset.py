"""The clips of the demo: none of them was there when its checkpoints were trained."""

from pathlib import Path

from vidcls_batch.synthetic.dataset import write_dataset

# Training took seed 1, the choice of the ensemble's weights 2, the accuracy in docs/demo.md 3 and 4.
DEMO_SEED = 10


def write_demo_dataset(
    folder: str | Path, *, num_clips: int = 192, seed: int = DEMO_SEED, num_workers: int = 2
) -> Path:
    """Write the demo's clips and one broken file of each kind; returns the CSV manifest's path."""
    return write_dataset(folder, num_clips=num_clips, seed=seed, broken=True, num_workers=num_workers)
