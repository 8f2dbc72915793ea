"""Our 3D networks against PyTorchVideo's own, from one randomly initialised state dict."""

from pathlib import Path

import pytest
import torch

from vidcls_batch.config import LabelSetConfig, MemberConfig
from vidcls_batch.models.preprocess import preprocess
from vidcls_batch.models.registry import load_member, open_family
from vidcls_batch.models.torchvision_import import import_torchvision

pytest.importorskip("pytorchvideo", reason="the oracle pytorchvideo is not installed")
import_torchvision()
hub = pytest.importorskip("pytorchvideo.models.hub")

NUM_LABELS = 11
LABELS = tuple(f"label {i}" for i in range(NUM_LABELS))
FAMILIES = ("slow_r50", "c2d_r50", "i3d_r50", "slowfast_r50", "slowfast_r101", "x3d_xs", "x3d_s", "x3d_m", "x3d_l")


def oracle_network(family: str) -> torch.nn.Module:
    """PyTorchVideo's network with random weights and, as after training, batch-norm statistics of their own."""
    torch.manual_seed(0)
    return randomised(getattr(hub, family)(pretrained=False, model_num_class=NUM_LABELS).eval())


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                # Small on the way back into the residual sum: a hundred layers of it would blow up otherwise.
                module.weight.uniform_(0.1, 0.3) if name.endswith("norm_c") else module.weight.uniform_(0.5, 1.2)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, torch.nn.Linear):
                module.weight.normal_(0, 0.05)
    return network


def oracle_output(family: str, network: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """What PyTorchVideo says of pixels [N, T, 3, H, W], packed as its tutorials do; X3D ends in a softmax."""
    video = pixels.transpose(1, 2)
    if not family.startswith("slowfast"):
        return network(video)
    picked = torch.linspace(0, video.shape[2] - 1, video.shape[2] // 4).long()
    return network([video[:, :, picked], video])  # a fresh list: the network writes into the one it is given


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_file_gives_pytorchvideos_logits(family: str, tmp_path: Path) -> None:
    network = oracle_network(family)
    torch.save({"model_state": network.state_dict()}, tmp_path / "weights.pyth")
    config = MemberConfig(
        name="m",
        family=family,
        checkpoint=str(tmp_path / "weights.pyth"),
        labels=LabelSetConfig(labels=LABELS),
    )
    member = load_member(config, labels=LABELS, device="cpu")
    size, slots = member.input.short_side, member.input.sampling.num_slots
    frames = torch.randint(0, 256, (1, slots, size, size + 40, 3), dtype=torch.uint8)
    pixels = preprocess(frames.flatten(0, 1), member.input, dtype=torch.float32).unflatten(0, (1, slots))
    with torch.inference_mode():
        expected = oracle_output(family, network, pixels)
    logits = member.logits(frames)[:, 0]
    assert logits.std() > 1e-2
    if family.startswith("x3d"):
        logits, expected = logits.log_softmax(-1), expected.log()
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert member.record.num_parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_state_dict_keys_and_shapes_are_pytorchvideos(family: str) -> None:
    ours = open_family(family).build(NUM_LABELS).state_dict()
    theirs = oracle_network(family).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def av_oracle(monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    module = pytest.importorskip("pytorchvideo.models.audio_visual_slowfast")
    monkeypatch.setattr(module, "print", lambda *_: None, raising=False)  # it prints a shape at each fusion
    torch.manual_seed(0)
    network = module.create_audio_visual_slowfast(model_num_class=NUM_LABELS).eval()
    return randomised(network)


def test_avslowfast_keys_and_shapes_are_pytorchvideos(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = open_family("avslowfast_r50").build(NUM_LABELS).state_dict()
    theirs = av_oracle(monkeypatch).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.slow
def test_avslowfast_gives_pytorchvideos_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = av_oracle(monkeypatch)
    ours = open_family("avslowfast_r50").build(NUM_LABELS).eval()
    ours.load_state_dict(oracle.state_dict(), strict=True)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 32, 3, 224, 224, generator=generator)  # its pools fit no other size
    log_mel = torch.randn(1, 128, 80, generator=generator)
    video = pixels.transpose(1, 2)
    picked = torch.linspace(0, 31, 8).long()
    with torch.inference_mode():
        expected = oracle([video[:, :, picked], video, log_mel[:, None, :, None, :]])
        logits = ours(pixels, log_mel, torch.tensor([True])).logits
        again = ours(pixels, log_mel * 2, torch.tensor([True])).logits
    assert expected.std() > 1e-2
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert (again - logits).abs().max() > 1e-3
