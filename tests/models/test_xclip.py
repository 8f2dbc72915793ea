from pathlib import Path

import pytest
import torch
from contracts.tiny_checkpoints import TinyCheckpoint, xclip

from vidcls_batch.config import MemberConfig
from vidcls_batch.models import xclip as module
from vidcls_batch.models.preprocess import preprocess
from vidcls_batch.models.registry import load_member

MANY = tuple(f"label {i}" for i in range(11))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
    return xclip(tmp_path_factory.mktemp("xclip"))


def scored(path: Path, labels: tuple[str, ...], **changes: object) -> tuple[torch.Tensor, torch.Tensor]:
    config = MemberConfig(name="m", family="xclip", checkpoint=str(path), **changes)
    member = load_member(config, labels=labels, device="cpu")
    frames = torch.randint(0, 256, (2, 4, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pixels = preprocess(frames.flatten(0, 1), member.input, dtype=torch.float32).unflatten(0, (2, 4))
    return member.logits(frames)[:, 0], pixels


@pytest.mark.parametrize("labels_at_once", [1, 4, 11, 1024])
def test_cached_texts_score_like_the_full_model_however_the_labels_are_cut(
    tiny: TinyCheckpoint, labels_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LABELS_AT_ONCE", labels_at_once)
    logits, pixels = scored(tiny.path, MANY)
    with torch.inference_mode():
        torch.testing.assert_close(logits, tiny.reference(pixels, MANY), atol=1e-5, rtol=0)


def test_the_prompt_generator_moves_the_logits(tiny: TinyCheckpoint, tmp_path: Path) -> None:
    from transformers import XCLIPModel

    model = XCLIPModel.from_pretrained(tiny.path)
    with torch.no_grad():
        model.prompts_generator.alpha.zero_()
    quiet = xclip(tmp_path)
    model.save_pretrained(quiet.path)
    assert not torch.allclose(scored(tiny.path, MANY)[0], scored(quiet.path, MANY)[0], atol=1e-2)


def test_a_label_is_scored_the_same_whatever_other_labels_there_are(tiny: TinyCheckpoint) -> None:
    alone, _ = scored(tiny.path, MANY[:3])
    together, _ = scored(tiny.path, MANY)
    torch.testing.assert_close(alone, together[:, :3], atol=1e-5, rtol=0)


def test_templates_are_averaged(tiny: TinyCheckpoint) -> None:
    once, _ = scored(tiny.path, MANY, prompts=("a video of {}",))
    twice, _ = scored(tiny.path, MANY, prompts=("a video of {}", "a video of {}"))
    other, _ = scored(tiny.path, MANY, prompts=("a video of {}", "someone doing {}"))
    torch.testing.assert_close(once, twice, atol=1e-5, rtol=0)
    assert not torch.allclose(once, other, atol=1e-3)
