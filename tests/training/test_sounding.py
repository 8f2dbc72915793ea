"""Training a model that sees and hears, on clips that only sight and sound together tell apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vidcls_batch.config import MemberConfig
from vidcls_batch.models.registry import describe_member
from vidcls_batch.synthetic.sounding import SOUNDING_LABELS, write_sounding_dataset
from vidcls_batch.training.clip_cache import cache_clips
from vidcls_batch.training.config import FinetuneConfig
from vidcls_batch.training.evaluation import accuracy, member_probabilities
from vidcls_batch.training.finetune import FinetuneResult, finetune
from vidcls_batch.types import FrameRequest

TRANSFORMER = {
    "patch_size": 16,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "sound_frames": 192,
    "num_mel_bins": 64,
}


def job(
    train: Path,
    test: Path,
    folder: Path,
    *,
    steps: int,
    label_set: Sequence[str] = SOUNDING_LABELS,
    **model: object,
) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "output": {"path": str(folder / "checkpoint")},
            "model": {
                "family": "av_transformer",
                "sampling": {"rule": "uniform"},
                "input": {"num_frames": 4, "size": 32},
                "architecture": TRANSFORMER,
            }
            | model,
            "label_set": list(label_set),
            "data": {"train": str(train), "evaluation": str(test), "cache": str(folder / "cache")},
            "optimization": {"steps": steps, "batch_size": 24, "learning_rate": 1e-3, "warmup_steps": 10},
        }
    )


@pytest.fixture(scope="module")
def few_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounding_dataset(tmp_path_factory.mktemp("few"), num_clips=12, seed=1, without_sound=0.3)


def accuracy_as_a_member(result: FinetuneResult, manifest: Path, cache: Path) -> float:
    config = MemberConfig(name="m", family="av_transformer", checkpoint=str(result.checkpoint))
    described = describe_member(config, labels=SOUNDING_LABELS)
    assert described.labels == SOUNDING_LABELS
    request = FrameRequest((described.input.sampling,), 32, 32, sounds=(described.sound,))
    clips = cache_clips(manifest, request=request, folder=cache)
    truth = np.array([SOUNDING_LABELS.index(label) for label in clips.rows.true_label])
    return accuracy(member_probabilities(config, clips, labels=SOUNDING_LABELS), truth)


@pytest.mark.parametrize("fusion", ["concatenation", "cross-attention"])
def test_a_trained_checkpoint_answers_the_same_in_a_run(fusion: str, few_clips: Path, tmp_path: Path) -> None:
    config = job(few_clips, few_clips, tmp_path, steps=20, architecture=TRANSFORMER | {"fusion": fusion})
    result = finetune(config)
    assert result.clips_evaluated == 12
    assert accuracy_as_a_member(result, few_clips, tmp_path / "cache") == pytest.approx(result.accuracy)


def test_a_checkpoint_can_be_trained_further(few_clips: Path, tmp_path: Path) -> None:
    first = finetune(job(few_clips, few_clips, tmp_path, steps=1))
    (tmp_path / "on").mkdir()
    again = job(
        few_clips, few_clips, tmp_path / "on", steps=1, checkpoint=str(first.checkpoint), architecture=None, input=None
    )
    result = finetune(again)
    assert accuracy_as_a_member(result, few_clips, tmp_path / "cache") == pytest.approx(result.accuracy)


def test_the_manifest_says_what_is_seen_and_heard(few_clips: Path) -> None:
    rows = pd.read_csv(few_clips)
    assert list(rows.true_label[:6]) == list(SOUNDING_LABELS)
    heard = rows[rows.sound.notna()]
    assert 0 < len(heard) < 12
    assert (heard.true_label == heard.motion + ", " + heard.sound + " tone").all()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_labels_that_look_alike_are_learned_by_their_sound(tmp_path: Path) -> None:
    """One motion, three sounds: frames say nothing, chance is one in three."""
    manifests = []
    for name, count, seed in (("train", 180, 1), ("test", 90, 2)):
        manifest = write_sounding_dataset(tmp_path / name, num_clips=count, seed=seed)
        rows = pd.read_csv(manifest)
        rows[rows.motion == "moving left"].to_csv(manifest, index=False)
        manifests.append(manifest)
    config = job(*manifests, tmp_path, steps=120, label_set=SOUNDING_LABELS[:3])
    assert finetune(config).accuracy > 0.5
