"""Our pictures of sound against those of the checkpoints' own extractors, which make them one by one in numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.tiny_checkpoints import ast, clap

from vidcls_batch.config import MemberConfig, SamplingConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.models.ast_audio import read_ast_input
from vidcls_batch.models.base import Sound
from vidcls_batch.models.checkpoints import open_checkpoint
from vidcls_batch.models.clap import ClapInput, read_clap_input
from vidcls_batch.models.log_mel import LogMelInput, repeated
from vidcls_batch.models.registry import describe_member, load_member


def tone(rate: int, seconds: float, *, noise: float = 0.0) -> np.ndarray:
    t = np.arange(round(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * (200 + 300 * t) * t) + noise * np.random.default_rng(0).standard_normal(len(t))
    return wave.astype(np.float32)


def batch(waves: list[np.ndarray], rate: int) -> Sound:
    samples = torch.zeros(len(waves), max(map(len, waves)))
    for row, wave in zip(samples, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    return Sound(samples, torch.tensor([len(w) for w in waves]), rate)


def clips_at(rate: int, *, longest: float) -> list[np.ndarray]:
    """A tone without noise (its quiet bands are the hard ones), noise, silence, a fifth of a second, one sample."""
    return [
        tone(rate, longest),
        tone(rate, 3.3, noise=0.1),
        np.zeros(2 * rate, np.float32),
        tone(rate, 0.2),
        tone(rate, 1 / rate, noise=0.1),
    ]


@pytest.fixture(scope="module")
def ast_input(tmp_path_factory: pytest.TempPathFactory) -> LogMelInput:
    """As published: no processor file, sizes of the network by default."""
    folder = tmp_path_factory.mktemp("ast")
    (folder / "config.json").write_text('{"model_type": "audio-spectrogram-transformer"}')
    read, source = read_ast_input(open_checkpoint(str(folder), weights=False))
    assert source == "family recipe"
    return read


def clap_input(folder: Path, **processor: object) -> ClapInput:
    fusion = processor.get("truncation") == "fusion"
    config = {"model_type": "clap", "audio_config": {"enable_fusion": fusion}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return read_clap_input(open_checkpoint(str(folder), weights=False))[0]


def test_ast_features_are_those_of_its_extractor(ast_input: LogMelInput) -> None:
    from transformers import ASTFeatureExtractor

    waves = clips_at(16_000, longest=10.0)[:4]  # the extractor cannot take one sample
    expected = ASTFeatureExtractor()(waves, sampling_rate=16_000, return_tensors="pt")["input_values"]
    features = ast_input.features(batch(waves, 16_000))
    assert features.shape == (4, 1024, 128)
    torch.testing.assert_close(features, expected.float(), atol=1e-3, rtol=0)


def test_the_window_of_ast_fills_all_its_frames_and_no_sample_more(ast_input: LogMelInput) -> None:
    lengths = torch.tensor([ast_input.window.num_samples, ast_input.window.num_samples - 1, 1, 0])
    assert ast_input.mel.num_frames(lengths).tolist() == [1024, 1023, 0, 0]


def test_sound_too_short_for_one_frame_is_empty_and_finite(ast_input: LogMelInput) -> None:
    features = ast_input.features(batch([tone(16_000, 0.01), np.zeros(0, np.float32)], 16_000))
    assert torch.equal(features[0], features[1])
    assert features.isfinite().all()


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
def test_clap_features_are_those_of_its_extractor(tmp_path: Path, truncation: str, padding: str) -> None:
    from transformers import ClapFeatureExtractor

    waves = clips_at(48_000, longest=10.0)
    ours = clap_input(tmp_path, truncation=truncation, padding=padding)
    assert (ours.window.sample_rate, ours.window.num_samples) == (48_000, 480_000)
    extractor = ClapFeatureExtractor(truncation=truncation, padding=padding)
    expected = extractor(waves, sampling_rate=48_000, return_tensors="pt")["input_features"]
    features = ours.features(batch(waves, 48_000))
    assert features.shape == expected.shape == (5, 4 if truncation == "fusion" else 1, 1001, 64)
    torch.testing.assert_close(features, expected.float(), atol=1e-3, rtol=0)


def test_whole_repeats_leave_the_rest_empty() -> None:
    sound = batch([np.array([1, 2, 3], np.float32), np.array([5, 6], np.float32), np.zeros(0, np.float32)], 8)
    assert repeated(sound, num_samples=7, whole=True).tolist() == [
        [1, 2, 3, 1, 2, 3, 0],
        [5, 6, 5, 6, 5, 6, 0],
        [0] * 7,
    ]
    assert repeated(sound, num_samples=7, whole=False)[0].tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_a_network_with_fusion_hears_short_clips_as_its_reference_does(tmp_path: Path) -> None:
    tiny = clap(tmp_path, fusion=True)
    labels = ("a dog", "rain")
    member = load_member(MemberConfig(name="m", family="clap", checkpoint=str(tmp_path)), labels=labels, device="cpu")
    sound = batch([tone(48_000, 2.0, noise=0.2), tone(48_000, 0.5)], 48_000)
    with torch.inference_mode():
        expected = tiny.reference(sound, labels)
    torch.testing.assert_close(member.logits(None, sound)[:, 0], expected, atol=1e-4, rtol=0)


def test_frames_cannot_be_asked_of_a_family_that_sees_none(tmp_path: Path) -> None:
    ast(tmp_path)
    config = MemberConfig(name="m", family="ast", checkpoint=str(tmp_path), sampling=SamplingConfig(num_frames=8))
    with pytest.raises(ConfigError, match=r"members\.m: sampling\.num_frames: this family hears and sees no frames"):
        describe_member(config, labels=("a",))


def test_an_extractor_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    ast(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_length": 1024}))
    with pytest.raises(CheckpointError, match=r"max_length 1024, but the network's config\.json says 128"):
        describe_member(MemberConfig(name="m", family="ast", checkpoint=str(tmp_path)), labels=("a",))
