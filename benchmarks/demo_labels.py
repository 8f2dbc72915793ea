"""Calibration, stacking and cascades on generated clips with the demo's models: figures for docs/labels.md.

    python -m benchmarks.demo_labels --clips 660 --splits 5 --folder /tmp/demo_labels

In each split half of the clips is learned from, all figures are of the other half. A cascade is worked out over stored
evidence at several margins, then run for real at one of them, its inference timed.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vidcls_batch.calibrate import calibrate_run
from vidcls_batch.config import Config, load_config, parse_config, resolved
from vidcls_batch.label_sets import load_label_set
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.models.registry import load_member
from vidcls_batch.progress import SilentProgress
from vidcls_batch.relabel import relabel_run
from vidcls_batch.storage import StorageOptions
from vidcls_batch.synthetic.dataset import write_dataset

SEED = 50_000  # of clips that nothing was trained or chosen on
MARGINS = (0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
BINS = 15
WAYS: dict[str, dict[str, bool]] = {
    "temperature": {},
    "few-shot": {"few_shot": True},
    "stacking": {"stacking": True},
    "few-shot and stacking": {"few_shot": True, "stacking": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=660)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    folder = options.folder.resolve()
    manifest = folder / "clips" / "manifest.csv"
    if not manifest.exists():
        write_dataset(manifest.parent, num_clips=options.clips, seed=SEED, num_workers=1)
    truth = pd.read_csv(manifest)[["clip_id", "true_label"]]
    output = ["output.member_logits=true", "output.member_embeddings=true"]
    config = load_config("configs/demo.yaml", overrides=[f"run.path={folder}/run", f"manifest={manifest}", *output])
    run_labeling(config, progress=SilentProgress())
    found = [_split(config, folder, truth, number) for number in range(options.splits)]
    for what in found[0]:
        eces, gains = (np.array([split[what][i] for split in found]) for i in (0, 1))
        summary = {
            "calibration": what,
            "splits": len(found),
            "mean ece": round(float(eces.mean()), 4),
            "largest ece": round(float(eces.max()), 4),
            "least accuracy over the best member": round(float(gains.min()), 4),
        }
        print(json.dumps(summary), flush=True)
    _cascades(config, folder)
    _cascade_for_real(config, folder)


def _split(config: Config, folder: Path, truth: pd.DataFrame, number: int) -> dict[str, tuple[float, float]]:
    """ECE and accuracy above the best member by way of calibrating, learned from one half, on the other."""
    known = truth.sample(frac=0.5, random_state=number)
    known.to_csv(folder / "truth.csv", index=False)
    held_out = truth[~truth["clip_id"].isin(known["clip_id"])]
    found = {"as it is": _tell(f"as it is, split {number}", _table(config.run.path), held_out, config)}
    for what, ways in WAYS.items():
        report = calibrate_run(
            config.run.path,
            truth_path=str(folder / "truth.csv"),
            out=str(folder / f"{what}-{number}.json"),
            options=StorageOptions(),
            column="true_label",
            plot=str(folder / f"{what}-{number}.png"),
            **ways,
        )
        print(report)
        ensemble = resolved(config)["ensemble"] | {"calibration": str(folder / f"{what}-{number}.json")}
        if "stacking" in ways:
            ensemble["rule"] = "stacking"
        table = _relabeled(config, folder / f"run-{what}-{number}", ensemble)
        found[what] = _tell(f"{what}, split {number}", table, held_out, config)
    return found


def _cascades(config: Config, folder: Path) -> None:
    """Each choice of first members, at each margin: labels as all members give them, and inference time asked for."""
    cost = _member_ms(config)
    print(json.dumps({"ms per clip": cost}))
    whole = _table(config.run.path).set_index("clip_id")["label"]
    for first in (["videomae"], ["timesformer"], ["videomae", "timesformer"]):
        for margin in MARGINS:
            cascade = {"first": first, "margin": margin, "audit_share": 0.0}
            out = folder / f"run-{'-'.join(first)}-{margin}"
            table = _relabeled(config, out, resolved(config)["ensemble"] | {"cascade": cascade}).set_index("clip_id")
            asked = float((table["cascade"] == "all").mean())
            rest = sum(ms for name, ms in cost.items() if name not in first)
            spent = sum(cost[name] for name in first) + asked * rest
            facts = {
                "first": first,
                "margin": margin,
                "asked all": round(asked, 3),
                "agreement": round(float((table["label"] == whole[table.index]).mean()), 4),
                "inference": round(spent / sum(cost.values()), 3),
            }
            print(json.dumps(facts), flush=True)


def _cascade_for_real(config: Config, folder: Path) -> None:
    """The same clips run with all members and with a cascade: the time that inference took, the labels that stayed."""
    tree = resolved(config)
    output = tree["output"] | {"member_logits": False, "member_embeddings": False}
    tables = {}
    for what, cascade in (("whole", None), ("cascade", {"first": ["videomae"], "margin": 0.7})):
        ensemble = tree["ensemble"] | {"cascade": cascade}
        run = f"{folder}/timed-{what}"
        run_labeling(
            parse_config(tree | {"run": run, "output": output, "ensemble": ensemble}), progress=SilentProgress()
        )
        tables[what] = _table(run).set_index("clip_id")
    whole, first = tables["whole"], tables["cascade"]
    facts = {
        "run for real": "videomae first, margin 0.7",
        "asked all": round(float((first["cascade"] != "first").mean()), 3),
        "agreement": round(float((first["label"] == whole["label"][first.index]).mean()), 4),
        "inference": round(float(first["infer_ms"].sum() / whole["infer_ms"].sum()), 3),
    }
    print(json.dumps(facts), flush=True)


def _member_ms(config: Config, *, batch: int = 16, rounds: int = 5) -> dict[str, float]:
    """Least milliseconds per clip over some rounds, one thread."""
    torch.set_num_threads(1)
    labels = load_label_set(config.label_set).labels
    found = {}
    for member in config.members:
        loaded = load_member(member, labels=labels, device="cpu")
        side = loaded.input.short_side
        frames = torch.zeros(batch, loaded.input.sampling.num_slots, side, side, 3, dtype=torch.uint8)
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            loaded.logits(frames)
            times.append((time.perf_counter() - started) * 1e3 / batch)
        found[member.name] = round(min(times), 2)
    return found


def _relabeled(config: Config, out: Path, ensemble: dict[str, object]) -> pd.DataFrame:
    new = parse_config(resolved(config) | {"run": str(out), "ensemble": ensemble})
    relabel_run(config.run.path, config=new, options=StorageOptions(), progress=SilentProgress())
    return _table(str(out))


def _table(run: str) -> pd.DataFrame:
    return pd.read_parquet(Path(run) / "predictions")


def _tell(what: str, table: pd.DataFrame, truth: pd.DataFrame, config: Config) -> tuple[float, float]:
    """Print each member's and the ensemble's figures; the ensemble's ECE, and its accuracy above the best member's."""
    accuracies: list[float] = []
    rows = table.drop(columns="true_label", errors="ignore").merge(truth, on="clip_id")
    for name in [*(m.name for m in config.members), ""]:
        prefix = f"{name}_" if name else ""
        right = (rows[f"{prefix}label"] == rows["true_label"]).to_numpy()
        score = rows[f"{prefix}score"].to_numpy()
        place = np.minimum((score * BINS).astype(int), BINS - 1)
        ece = sum(abs(right[place == b].mean() - score[place == b].mean()) * (place == b).mean() for b in set(place))
        facts = {
            "calibration": what,
            "of": name or "ensemble",
            "clips": len(rows),
            "accuracy": round(float(right.mean()), 4),
            "ece": round(float(ece), 4),
        }
        print(json.dumps(facts), flush=True)
        accuracies.append(float(right.mean()))
    return float(ece), accuracies[-1] - max(accuracies[:-1])


if __name__ == "__main__":
    main()
