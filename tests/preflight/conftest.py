"""A small run that is planned and never started: generated clips and one tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from contracts.tiny_checkpoints import LABELS, videomae

from vidcls_batch.config import Config, parse_config
from vidcls_batch.synthetic.clips import write_clip
from vidcls_batch.synthetic.motions import LABELS as MOTIONS


@pytest.fixture(scope="session")
def good_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("preflight-clips")
    paths = [folder / f"good{i}.mp4" for i in range(6)]
    for i, path in enumerate(paths):
        write_clip(path, label=MOTIONS[i], seed=i, size=(64, 48), fps=10, duration_s=1.0)
    return paths


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videomae(tmp_path_factory.mktemp("preflight-model") / "v").path


@pytest.fixture
def config_over(tmp_path: Path, checkpoint: Path) -> Callable[..., Config]:
    """A config whose manifest holds `uris`; further keys change it."""

    def make(uris: list[Path], **changes: Any) -> Config:
        manifest = tmp_path / "clips.parquet"
        pd.DataFrame({"clip_id": [f"c{i:03d}" for i in range(len(uris))], "uri": [str(u) for u in uris]}).to_parquet(
            manifest
        )
        uniform = {"rule": "uniform"}
        member = {"name": "vm", "family": "videomae", "checkpoint": str(checkpoint), "sampling": uniform}
        tree = {
            "run": str(tmp_path / "run"),
            "manifest": str(manifest),
            "label_set": list(LABELS),
            "members": [member],
            "output": {"unit_clips": 4},
            "resources": {"batch_size": 4},
        }
        return parse_config(tree | changes)

    return make
