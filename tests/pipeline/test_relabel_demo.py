"""The demo's models, and random ones of three families, labeled again by the config they were run with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from contracts.tiny_checkpoints import clip, videomae, vivit

from vidcls_batch.config import Config, load_config, parse_config, resolved
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.progress import SilentProgress
from vidcls_batch.relabel import relabel_run
from vidcls_batch.storage import StorageOptions
from vidcls_batch.synthetic.dataset import write_dataset

REPOSITORY = Path(__file__).parents[2]
# Logits are stored as float16, 11 bits: those of some 10 are off by 0.004, and a probability by a quarter of that.
WITHIN = 2e-3


def labeled_twice(config: Config, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    run_labeling(config, progress=SilentProgress())
    again = parse_config(resolved(config) | {"run": str(folder / "again")})
    relabel_run(config.run.path, config=again, options=StorageOptions(), progress=SilentProgress())
    before, after = (pd.read_parquet(Path(f) / "predictions") for f in (config.run.path, folder / "again"))
    assert after["clip_id"].tolist() == before["clip_id"].tolist()
    return before, after


def assert_same_labels(before: pd.DataFrame, after: pd.DataFrame, members: list[str]) -> None:
    assert after["status"].tolist() == before["status"].tolist()
    for prefix in ["", *(f"{m}_" for m in members)]:
        assert np.allclose(after[f"{prefix}score"], before[f"{prefix}score"], atol=WITHIN, equal_nan=True)
        best = before[f"{prefix}topk_scores"].map(lambda s: s[0] - s[1] if s is not None else np.nan)
        sure = (best > 2 * WITHIN).to_numpy()
        assert sure.sum() > 0.9 * best.notna().sum()
        assert after[f"{prefix}label"][sure].tolist() == before[f"{prefix}label"][sure].tolist()


@pytest.mark.slow
def test_the_demo_relabeled_with_its_config_gives_its_labels(tmp_path: Path, ray_session: None) -> None:
    write_dataset(tmp_path / "clips", num_clips=22, seed=70_000, broken=True, num_workers=1)
    config = load_config(
        REPOSITORY / "configs" / "demo.yaml",
        overrides=[
            f"run.path={tmp_path}/run",
            f"manifest.path={tmp_path}/clips/manifest.csv",
            "output.member_logits=true",
            "output.member_embeddings=true",
        ],
    )
    before, after = labeled_twice(config, tmp_path)
    assert_same_labels(before, after, [m.name for m in config.members])
    assert after["label"].tolist() == before["label"].tolist()
    assert (before["status"] == "ok").sum() == 22
    assert (before["status"] != "ok").sum() > 0


def test_random_members_relabeled_with_their_config_give_their_labels(
    make_config: Callable[..., Config],
    write_manifest: Callable[..., Path],
    clips: list[Path],
    tmp_path: Path,
    ray_session: None,
) -> None:
    made = {"videomae": videomae, "vivit": vivit, "clip": clip}
    members = [
        {"name": f"m{i}", "family": family, "checkpoint": str(make(tmp_path / family).path)}
        for i, (family, make) in enumerate(made.items())
    ]
    output = {"unit_clips": 5, "member_logits": True, "member_embeddings": True}
    config = make_config(
        write_manifest([*clips, tmp_path / "gone.mp4"]),
        members=members,
        output=output,
        ensemble={"rule": "log_pool", "weights": {"m0": 2.0}},
    )
    before, after = labeled_twice(config, tmp_path)
    assert_same_labels(before, after, ["m0", "m1", "m2"])
