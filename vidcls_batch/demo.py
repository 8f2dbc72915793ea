"""`make demo`: generated clips with known labels through a whole run, with the accuracy it reached."""

import time
from pathlib import Path

import pandas as pd

from vidcls_batch.config import load_config
from vidcls_batch.labeling_run import RunOutcome, run_labeling
from vidcls_batch.progress import ConsoleProgress, format_duration
from vidcls_batch.synthetic.accuracy import accuracy_table
from vidcls_batch.synthetic.dataset import write_dataset

CONFIG = Path("configs/demo.yaml")
NUM_CLIPS = 200
# Seeds of the training clips differ (configs/demo/*.yaml): the models have seen none of these.
SEED = 20_000
SHOWN_COLUMNS = ["clip_id", "status", "true_label", "label", "score", "margin", "agreement"]


def run_demo(folder: Path, *, num_clips: int = NUM_CLIPS) -> RunOutcome:
    """Make the clips, label them, print what came out. Raises what a run raises."""
    started = time.monotonic()
    folder = folder.resolve()
    with ConsoleProgress() as progress:
        manifest = folder / "clips" / "manifest.csv"
        if manifest.exists():
            progress.say(f"Clips are there already: {manifest.parent}")
        else:
            progress.say(
                f"Generating {num_clips} clips with known labels, and some broken files, in {manifest.parent} ..."
            )
            write_dataset(manifest.parent, num_clips=num_clips, seed=SEED, broken=True, num_workers=2)
        config = load_config(CONFIG, overrides=[f"run.path={folder / 'run'}", f"manifest.path={manifest}"])
        outcome = run_labeling(config, progress=progress)
    print(f"\n{outcome}\n")
    _show(pd.read_parquet(folder / "run" / "predictions"), folder=folder)
    print(f"\nThe demo took {format_duration(time.monotonic() - started)}.")
    return outcome


def _show(table: pd.DataFrame, *, folder: Path) -> None:
    accuracy = accuracy_table(table)
    accuracy["accuracy"] = accuracy["accuracy"].map("{:.1%}".format)
    print("Accuracy on these clips, which no model was trained on:")
    print(accuracy.to_string(index=False))
    print(f"\nFirst rows of pd.read_parquet('{folder}/run/predictions'):")
    print(table[SHOWN_COLUMNS].head(8).to_string(index=False, float_format="{:.3f}".format))
    failed = table[table["status"] != "ok"]
    print(f"\nClips that could not be labeled, each with its row ({len(failed)}):")
    print(failed[["clip_id", "status", "error_code", "error_message"]].to_string(index=False, max_colwidth=60))
    good = table.loc[table["status"] == "ok", "uri"].iloc[0]
    print(
        f"""
Where everything lies:
  clips and manifest   {folder}/clips
  predictions          {folder}/run/predictions/*.parquet
  provenance           {folder}/run/run.json
Try next:
  . .venv/bin/activate
  vidcls status {folder}/run
  vidcls verify {folder}/run
  vidcls peek {good} --config {CONFIG} --sheet {folder}/frames.png
  make demo                     # again: everything is labeled, so nothing is done
  vidcls plan configs/kinetics400_ensemble.yaml --set manifest=YOUR_CLIPS.csv --set run=out/k400"""
    )
