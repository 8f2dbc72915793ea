"""The two ways of fusing sight and sound, beside what the contract suite holds of the family."""

from pathlib import Path

import pytest
import torch
from contracts.tiny_checkpoints import LABELS, av_transformer

from vidcls_batch.config import MemberConfig
from vidcls_batch.models.av_transformer_network import (
    AvTransformerConfig,
    AvTransformerForVideoClassification,
    sines,
)
from vidcls_batch.models.base import Sound
from vidcls_batch.models.registry import load_member

FUSIONS = ("concatenation", "cross-attention")


def some_input(lengths: tuple[int, ...]) -> tuple[torch.Tensor, Sound]:
    generator = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (len(lengths), 4, 40, 40, 3), dtype=torch.uint8, generator=generator)
    samples = torch.randn(len(lengths), 8000, generator=generator) * 0.1
    return frames, Sound(samples, torch.tensor(lengths), 16_000)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_both_fusions_see_and_hear_and_do_without_sound(fusion: str, tmp_path: Path) -> None:
    tiny = av_transformer(tmp_path, fusion=fusion)
    config = MemberConfig(name="m", family="av_transformer", checkpoint=str(tmp_path))
    member = load_member(config, labels=LABELS, device="cpu")
    frames, sound = some_input((8000, 8000, 0))
    logits = member.logits(frames, sound)[:, 0]
    assert not torch.allclose(member.logits(frames.flip(0), sound)[:, 0], logits, atol=1e-3)
    other = Sound(sound.samples.flip(1) * 3, sound.lengths, 16_000)
    changed = (member.logits(frames, other)[:, 0] - logits).abs().amax(dim=1)
    assert (changed[:2] > 1e-3).all()
    assert changed[2] < 1e-5
    assert tiny.path == tmp_path


@pytest.mark.parametrize("fusion", FUSIONS)
def test_saved_and_loaded_again_it_answers_the_same(fusion: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = AvTransformerConfig(
        fusion=fusion,
        image_size=32,
        num_frames=4,
        sound_frames=32,
        num_mel_bins=32,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=5,
    )
    model = AvTransformerForVideoClassification(config).eval()
    model.save_pretrained(tmp_path)
    again = AvTransformerForVideoClassification.from_pretrained(tmp_path).eval()
    inputs = (torch.randn(2, 4, 3, 32, 32), torch.randn(2, 32, 32), torch.tensor([True, False]))
    with torch.no_grad():
        output = model(*inputs, labels=torch.tensor([1, 4]))
        torch.testing.assert_close(again(*inputs).logits, output.logits)
    assert output.logits.shape == (2, 5)
    expected = torch.nn.functional.cross_entropy(output.logits, torch.tensor([1, 4]))
    torch.testing.assert_close(output.loss, expected)


def test_sizes_that_leave_a_rest_are_refused() -> None:
    with pytest.raises(ValueError, match="sound_frames is 100, expected a multiple of 16"):
        AvTransformerConfig(sound_frames=100)
    with pytest.raises(ValueError, match="known: concatenation, cross-attention"):
        AvTransformerConfig(fusion="late")


def test_positions_differ_and_start_at_sine_0_cosine_1() -> None:
    positions = sines(torch.zeros(1, 50, 8))
    assert positions[0].tolist() == [0.0, 1.0] * 4
    assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 0.1
