"""Clips of which half of the label is seen and the other half heard: what audio-visual models are tried on."""

from pathlib import Path

import numpy as np

from vidcls_batch.synthetic.clips import write_clip
from vidcls_batch.synthetic.sounds import Sound

SEEN = ("moving left", "moving right")
HEARD = ("steady", "pulsing", "warbling")
SOUNDING_LABELS: tuple[str, ...] = tuple(f"{motion}, {pattern} tone" for motion in SEEN for pattern in HEARD)
"""Six labels. Who only sees tells two groups of three apart and is right at most one time in three; who only hears
tells three groups of two apart: one time in two."""

_PITCHES_HZ = (300.0, 900.0)  # drawn for each clip: the pitch says nothing of the label


def write_sounding_dataset(folder: str | Path, *, num_clips: int, seed: int, without_sound: float = 0.0) -> Path:
    """Write `num_clips` clips of two seconds, SOUNDING_LABELS in turn, and return the path of their manifest.

    Columns: clip_id, uri, true_label, motion, sound. A share `without_sound` of the clips, drawn by `seed`, has no
    audio stream: `sound` is null there.
    """
    import pandas as pd

    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(num_clips):
        label = SOUNDING_LABELS[index % len(SOUNDING_LABELS)]
        motion, pattern = SEEN[index % len(SOUNDING_LABELS) // len(HEARD)], HEARD[index % len(HEARD)]
        pitch_hz, has_sound = float(rng.uniform(*_PITCHES_HZ)), bool(rng.random() >= without_sound)
        path = folder / f"clip-{index:05d}.mp4"
        write_clip(
            path,
            label=motion,
            seed=seed * 1_000_000 + index,
            size=(64, 64),
            fps=10,
            duration_s=2.0,
            sound=Sound(pattern, pitch_hz),
            has_sound=has_sound,
        )
        rows.append(
            {
                "clip_id": path.stem,
                "uri": str(path),
                "true_label": label,
                "motion": motion,
                "sound": pattern if has_sound else None,
            }
        )
    manifest = folder / "manifest.csv"
    pd.DataFrame(rows).to_csv(manifest, index=False)
    return manifest
