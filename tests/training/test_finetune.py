"""Fine-tuning learns, saves what a run can load, and refuses what it cannot use."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, VideoMAEForVideoClassification

from vidcls_batch.config import MemberConfig
from vidcls_batch.errors import CheckpointError, ConfigError, ManifestError
from vidcls_batch.models.registry import describe_member, load_member
from vidcls_batch.synthetic.dataset import write_dataset
from vidcls_batch.training.config import FinetuneConfig, load_finetune_config
from vidcls_batch.training.finetune import finetune
from vidcls_batch.types import FrameRequest
from vidcls_batch.video.decode import decode_in_process

REPOSITORY = Path(__file__).parents[2]
LABELS = ["moving left", "moving right", "moving up", "moving down"]
TRANSFORMER = {
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
ARCHITECTURES = {
    "videomae": {**TRANSFORMER, "tubelet_size": 2},
    "timesformer": TRANSFORMER,
    "xclip": {
        "projection_dim": 32,
        "prompt_layers": 1,
        "prompt_num_attention_heads": 2,
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        "vision_config": {
            **TRANSFORMER,
            "mit_hidden_size": 32,
            "mit_intermediate_size": 64,
            "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 2,
        },
    },
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Sixteen clips of four motions."""
    folder = tmp_path_factory.mktemp("clips")
    path = write_dataset(folder, num_clips=48, seed=1)
    rows = pd.read_csv(path)
    rows[rows.true_label.isin(LABELS)].to_csv(path, index=False)
    return path


def job(manifest, folder, family="videomae", *, steps=2, **changes):
    tree = {
        "output": {"path": str(folder / "checkpoint")},
        "model": {
            "family": family,
            "sampling": {"rule": "uniform"},
            "input": {"num_frames": 4, "size": 32},
            "architecture": ARCHITECTURES[family],
            "max_tokens": 16,
        },
        "label_set": LABELS,
        "data": {"train": str(manifest), "evaluation": str(manifest), "cache": str(manifest.parent / "cache")},
        "optimization": {"steps": steps, "batch_size": 8, "learning_rate": 2e-3, "warmup_steps": 5},
    }
    if family == "xclip":
        tree["data"]["captions"] = ["caption", "motion_caption"]
        tree["prompt"] = "a shape {}"
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            tree[section][name] = value
        else:
            tree[section] = value
    return FinetuneConfig.model_validate(tree)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_trained_model_beats_guessing_and_its_checkpoint_answers_the_same_in_a_run(family, manifest, tmp_path):
    result = finetune(job(manifest, tmp_path, family, steps=150))
    assert result.accuracy >= 0.6, "four labels, seen in training: chance is 0.25"

    prompts = ("a shape {}",) if family == "xclip" else None
    member = MemberConfig(
        name="m", family=family, checkpoint=str(result.checkpoint), prompts=prompts, sampling={"rule": "uniform"}
    )
    loaded = load_member(member, labels=tuple(LABELS), device="cpu")
    rows = pd.read_csv(manifest)
    request = FrameRequest((loaded.input.sampling,), height=32, width=32)
    frames = np.stack([decode_in_process(Path(uri).read_bytes(), request).frames for uri in rows.uri])
    answers = loaded.logits(torch.from_numpy(frames)).mean(dim=1).argmax(dim=-1)
    accuracy = np.mean([LABELS[int(a)] == label for a, label in zip(answers, rows.true_label, strict=True)])
    assert accuracy == pytest.approx(result.accuracy)


@pytest.fixture(scope="module")
def checkpoint(manifest, tmp_path_factory):
    """A VideoMAE after two steps, stored in half precision."""
    folder = tmp_path_factory.mktemp("trained")
    config = job(manifest, folder, output={"path": str(folder / "checkpoint"), "half_precision": True})
    return finetune(config).checkpoint


def test_half_precision_halves_the_file_and_loads_as_float32(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.float16}
    assert json.loads((checkpoint / "config.json").read_text())["dtype"] == "float32"
    assert VideoMAEForVideoClassification.from_pretrained(checkpoint).dtype == torch.float32


def test_checkpoint_names_its_labels_preprocessing_and_licence(checkpoint):
    description = describe_member(
        MemberConfig(name="m", family="videomae", checkpoint=str(checkpoint)), labels=tuple(LABELS)
    )
    assert description.labels == tuple(LABELS)
    assert description.preprocessing_from == "preprocessor_config.json"
    assert (description.input.height, description.input.mean) == (32, (0.45, 0.45, 0.45))
    assert description.licence == "apache-2.0"


def test_fine_tuning_a_checkpoint_keeps_its_body_and_preprocessing_and_gives_it_new_labels(
    checkpoint, manifest, tmp_path
):
    config = job(
        manifest,
        tmp_path,
        steps=1,
        model={"family": "videomae", "checkpoint": str(checkpoint), "sampling": {"rule": "uniform"}},
        label_set=[*LABELS, "growing"],
        optimization__learning_rate=1e-9,
    )
    result = finetune(config)
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, result.checkpoint))
    assert after["classifier.weight"].shape[0] == 5
    for name, tensor in before.items():
        if not name.startswith("classifier."):
            assert torch.allclose(tensor.float(), after[name], atol=1e-5), name
    assert (result.checkpoint / "preprocessor_config.json").read_text() == (
        checkpoint / "preprocessor_config.json"
    ).read_text()


def test_same_seed_same_weights(manifest, tmp_path):
    first, second = (finetune(job(manifest, tmp_path / name, steps=2)).checkpoint for name in "ab")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_only_the_rows_asked_for_are_learned_from(manifest, tmp_path):
    rows = pd.read_csv(manifest)
    colour = rows.colour.mode()[0]
    result = finetune(job(manifest, tmp_path, data__where={"colour": colour}, optimization__batch_size=2))
    assert result.clips_trained == (rows.colour == colour).sum()
    assert result.clips_evaluated == len(rows)


def test_a_label_outside_the_label_set_is_refused_by_name(manifest, tmp_path):
    with pytest.raises(ManifestError, match="moving up"):
        finetune(job(manifest, tmp_path, label_set=["moving left", "moving right", "moving down"]))


def test_a_missing_label_column_is_refused_with_the_columns_there_are(manifest, tmp_path):
    with pytest.raises(ManifestError, match=r"'label'.*true_label"):
        finetune(job(manifest, tmp_path, data__label="label"))


def test_a_checkpoint_of_another_family_is_refused(checkpoint, manifest, tmp_path):
    model = {"family": "timesformer", "checkpoint": str(checkpoint)}
    with pytest.raises(CheckpointError, match="videomae"):
        finetune(job(manifest, tmp_path, model=model))


def test_an_architecture_that_is_none_is_refused(manifest, tmp_path):
    config = job(manifest, tmp_path)
    odd = config.model.model_copy(update={"architecture": {**TRANSFORMER, "hidden_size": 33}})
    with pytest.raises(ConfigError, match=r"model\.architecture"):
        finetune(config.model_copy(update={"model": odd}))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("outptu: {path: x}", "outptu"),
        ("output: {path: x}\nmodel: {family: videomae}", "checkpoint"),
        ("- a list", "mapping"),
    ],
)
def test_a_wrong_config_is_refused_with_the_key_at_fault(text, hint, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=hint):
        load_finetune_config(path)


@pytest.mark.parametrize("name", ["videomae", "timesformer", "xclip"])
def test_the_demo_jobs_are_valid_and_can_be_changed_from_the_command_line(name):
    path = REPOSITORY / "configs" / "demo" / f"finetune_{name}.yaml"
    config = load_finetune_config(path, overrides=["optimization.steps=7"])
    assert name.startswith(config.model.family)
    assert config.optimization.steps == 7


def test_weights_with_factor_zero_stay_as_they_are_and_the_others_learn(checkpoint, manifest, tmp_path):
    config = job(
        manifest,
        tmp_path,
        steps=3,
        model={"family": "videomae", "checkpoint": str(checkpoint), "sampling": {"rule": "uniform"}},
        optimization__learning_rate_factors={"videomae.": 0.0, "videomae.encoder.layer.1.": 1.0},
    )
    result = finetune(config)
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, result.checkpoint))
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert any(name.startswith("videomae.encoder.layer.1.") for name in changed)
    assert any(name.startswith("classifier.") for name in changed)
    frozen = {n for n in before if n.startswith("videomae.") and not n.startswith("videomae.encoder.layer.1.")}
    assert not frozen & changed


def test_positions_of_a_timesformer_from_scratch_start_as_distinct_sines(manifest, tmp_path):
    config = job(manifest, tmp_path, "timesformer", steps=1, optimization__learning_rate=1e-9)
    weights = load_file(finetune(config).checkpoint / "model.safetensors")
    times = weights["timesformer.embeddings.time_embeddings"][0]
    assert times[0, :4].tolist() == pytest.approx([0.0, 1.0, 0.0, 1.0], abs=1e-6)
    assert torch.cdist(times, times).add(torch.eye(len(times)) * 9).min() > 0.5


def test_a_tokenizer_can_learn_words_of_columns_that_are_not_captions_yet(manifest, tmp_path):
    config = job(manifest, tmp_path, "xclip", steps=1, data__captions=["motion_caption"], data__vocabulary=["caption"])
    tokenizer = AutoTokenizer.from_pretrained(finetune(config).checkpoint)
    for colour in pd.read_csv(manifest).colour.unique():
        assert len(tokenizer(colour)["input_ids"]) == 3, "start, the word, end"
