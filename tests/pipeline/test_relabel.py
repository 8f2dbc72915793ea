"""Relabeling real runs of tiny random models: trained heads and a zero-shot member."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from contracts.tiny_checkpoints import LABELS, xclip

from vidcls_batch.config import Config, parse_config, resolved
from vidcls_batch.errors import ConfigError
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.progress import SilentProgress
from vidcls_batch.propose_mapping import propose_mapping
from vidcls_batch.relabel import relabel_run
from vidcls_batch.storage import StorageOptions

OUTPUT = {"unit_clips": 5, "member_logits": True, "member_embeddings": True, "member_context": True}
NEW = ["walking the dog", "cooking", "riding bike", "sleeping"]


@pytest.fixture(scope="module")
def zero_shot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return xclip(tmp_path_factory.mktemp("xclip")).path


def member(path: Path, **changes: object) -> dict[str, object]:
    return {"name": "xc", "family": "xclip", "checkpoint": str(path), **changes}


def relabeled(run: Config, out: Path, **changes: object) -> pd.DataFrame:
    config = parse_config(resolved(run) | {"run": str(out)} | changes)
    relabel_run(run.run.path, config=config, options=StorageOptions(), progress=SilentProgress())
    return table(out)


def table(folder: Path | str) -> pd.DataFrame:
    return pd.read_parquet(Path(folder) / "predictions").sort_values("clip_id").reset_index(drop=True)


def test_new_labels_prompts_and_members_without_the_video(
    make_config: Callable[..., Config],
    write_manifest: Callable[..., Path],
    clips: list[Path],
    zero_shot: Path,
    tmp_path: Path,
    ray_session: None,
) -> None:
    manifest = write_manifest([*clips[:6], tmp_path / "not-there.mp4"])
    heads = resolved(make_config(manifest))["members"]
    run = make_config(manifest, members=[heads[0], member(zero_shot)], output=OUTPUT)
    run_labeling(run, progress=SilentProgress())
    before = table(run.run.path)

    same = relabeled(run, tmp_path / "same")
    assert same["label"].tolist() == before["label"].tolist()
    assert np.allclose(same["score"], before["score"], atol=5e-3, equal_nan=True)
    assert same["status"].tolist() == before["status"].tolist() == ["ok"] * 6 + ["fetch_error"]

    alone = make_config(manifest, run=str(tmp_path / "alone"), members=[member(zero_shot)], label_set=NEW)
    run_labeling(alone, progress=SilentProgress())
    expected = table(alone.run.path)
    after = relabeled(run, tmp_path / "new", members=[member(zero_shot)], label_set=NEW)
    assert after["label"].tolist() == expected["label"].tolist()
    assert np.allclose(after["score"], expected["score"], atol=2e-2, equal_nan=True)

    both = make_config(manifest, run=str(tmp_path / "both"), members=heads, output={"unit_clips": 5})
    run_labeling(both, progress=SilentProgress())
    wanted = table(both.run.path)
    merged = relabeled(run, tmp_path / "merged", members=heads)
    assert merged["label"].tolist() == wanted["label"].tolist()
    assert np.allclose(merged["score"], wanted["score"], atol=5e-3, equal_nan=True)
    assert merged["ts_label"].tolist() == wanted["ts_label"].tolist()
    assert not list((tmp_path / "merged" / "added").glob("**/*vm*"))


def test_a_mapping_is_proposed_for_review(
    make_config: Callable[..., Config],
    write_manifest: Callable[..., Path],
    clips: list[Path],
    zero_shot: Path,
    tmp_path: Path,
) -> None:
    manifest = write_manifest(clips[:1])
    heads = resolved(make_config(manifest))["members"]
    config = make_config(manifest, members=[heads[0], member(zero_shot)], label_set=list(LABELS[:2]))
    proposal = propose_mapping(config, member="vm", encoder=None, unmapped_below=0.0, out=tmp_path / "map.yaml")
    tree = yaml.safe_load((tmp_path / "map.yaml").read_text())
    assert proposal.encoder == "xc"
    assert tree["reviewed"] is False
    assert {name: tree["map"][name] for name in LABELS[:2]} == {name: name for name in LABELS[:2]}
    with pytest.raises(ConfigError, match="needs no mapping"):
        propose_mapping(config, member="xc", encoder=None, unmapped_below=0.0, out=tmp_path / "map.yaml")
    with pytest.raises(ConfigError, match="has no text encoder"):
        propose_mapping(config, member="vm", encoder="vm", unmapped_below=0.0, out=tmp_path / "map.yaml")
