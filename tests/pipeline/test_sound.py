"""Clips labeled by a member that sees and one that hears."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from contracts.tiny_checkpoints import LABELS, ast

from vidcls_batch.config import Config, MemberConfig
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.models.base import Sound
from vidcls_batch.models.registry import load_member
from vidcls_batch.peek import peek_at
from vidcls_batch.planning import plan_run
from vidcls_batch.progress import SilentProgress
from vidcls_batch.synthetic.clips import write_clip
from vidcls_batch.synthetic.sounds import Sound as Tone
from vidcls_batch.types import DecodeLimits
from vidcls_batch.video.audio import decode_sound

SOUNDS = {
    "low": Tone("steady", 200.0),
    "high": Tone("pulsing", 2000.0),
    "silent": Tone("silent"),
    "absent": None,
}


@pytest.fixture
def sounding(tmp_path: Path) -> dict[str, Path]:
    paths = {}
    for name, tone in SOUNDS.items():
        paths[name] = tmp_path / f"{name}.mp4"
        write_clip(
            paths[name],
            label="growing",
            seed=1,
            size=(64, 48),
            fps=10,
            duration_s=2.0,
            sound=tone,
            has_sound=tone is not None,
        )
    return paths


@pytest.fixture
def listening(make_config, write_manifest, tmp_path, models, sounding) -> Config:
    (tmp_path / "ast").mkdir()
    uris = [*sounding.values()] * 2
    manifest = write_manifest(uris, start_s=[None] * 4 + [0.5] * 4, end_s=[None] * 4 + [1.25] * 4)
    members = [
        {"name": "eye", "family": "videomae", "checkpoint": str(models.videomae), "sampling": {"rule": "uniform"}},
        {"name": "ear", "family": "ast", "checkpoint": str(ast(tmp_path / "ast").path)},
    ]
    return make_config(manifest, members=members, output={"unit_clips": 8, "member_logits": True})


def own_logits(config: Config, path: Path, *, start_s: float, end_s: float) -> np.ndarray:
    """What the member that hears says of a clip when no run is around it."""
    member = load_member(MemberConfig.model_validate(config.members[1]), labels=LABELS, device="cpu")
    samples = np.zeros(member.sound.num_samples, np.float32)
    report = decode_sound(
        samples, path.read_bytes(), windows=[member.sound], limits=DecodeLimits(), start_s=start_s, end_s=end_s
    )
    sound = Sound(torch.from_numpy(samples)[None], torch.tensor(report.lengths), member.sound.sample_rate)
    return member.logits(None, sound)[0, 0].numpy()


def test_plan_and_peek_tell_of_the_sound(listening: Config, sounding: dict[str, Path]) -> None:
    plan = str(plan_run(listening, progress=SilentProgress()).summary)
    assert "of 32x32 and 1.3 s of sound at 16,000 Hz for each clip" in plan
    heard, absent = (peek_at(str(sounding[name]), config=listening) for name in ("low", "absent"))
    assert "  sound      present" in str(heard)
    assert "  sound      missing" in str(absent)
    assert "  ear        no score" in str(absent)
    assert absent.ok


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_clips_with_and_without_sound_are_labeled_in_one_run(listening: Config, sounding: dict[str, Path]) -> None:
    run_labeling(listening, progress=SilentProgress())
    table = pd.read_parquet(Path(listening.run.path) / "predictions")
    assert list(table.status) == ["ok"] * 8
    assert list(table.audio) == ["present", "present", "silent", "missing"] * 2
    hears = table.ear_label.notna()
    assert list(hears) == [True, True, True, False] * 2
    assert table.eye_label.notna().all()
    assert table.label[~hears].equals(table.eye_label[~hears])
    assert np.allclose(table.score[~hears], table.eye_score[~hears], atol=1e-6)
    for row in table[hears].itertuples():
        start_s, end_s = (0.0, 2.0) if pd.isna(row.start_s) else (row.start_s, row.end_s)
        expected = own_logits(listening, Path(row.uri), start_s=start_s, end_s=end_s)
        assert np.allclose(np.array(row.ear_logits, np.float32), expected, atol=2e-2), row.clip_id
    of_low = table[table.uri.str.endswith("low.mp4")].ear_logits.tolist()
    assert not np.allclose(of_low[0], of_low[1], atol=2e-2)  # its range sounds different


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_run_that_only_listens_labels_what_has_sound(listening: Config) -> None:
    config = listening.model_copy(update={"members": listening.members[1:]})
    run_labeling(config, progress=SilentProgress())
    table = pd.read_parquet(Path(config.run.path) / "predictions")
    assert list(table.status) == ["ok", "ok", "ok", "model_error"] * 2
    assert set(table.error_code.dropna()) == {"no_score"}
    assert (table.frames_requested == 1).all()
