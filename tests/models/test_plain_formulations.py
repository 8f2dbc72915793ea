"""UniFormer and C3D against a second formulation, written out plainly over their state dicts."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv3d, gelu, layer_norm, linear, max_pool3d

from vidcls_batch.models.av_slowfast import AvSlowFast
from vidcls_batch.models.c3d import C3d
from vidcls_batch.models.slowfast import SlowFast
from vidcls_batch.models.uniformer import DEPTHS, UniFormer

State = dict[str, Tensor]


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, torch.nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return network.eval()


def convolve(s: State, name: str, x: Tensor, **how: object) -> Tensor:
    return conv3d(x, s[f"{name}.weight"], s[f"{name}.bias"], **how)


def normalise_batch(s: State, name: str, x: Tensor) -> Tensor:
    return batch_norm(x, s[f"{name}.running_mean"], s[f"{name}.running_var"], s[f"{name}.weight"], s[f"{name}.bias"])


def normalise_channels(s: State, name: str, x: Tensor, eps: float) -> Tensor:
    """Layer norm over the channel axis of [N, C, T, H, W]."""
    y = x.movedim(1, -1)
    return layer_norm(y, y.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], eps).movedim(-1, 1)


def attend(s: State, name: str, x: Tensor) -> Tensor:
    """Attention head by head, with its softmax written out, over the places of [N, C, T, H, W]."""
    n, c, *size = x.shape
    tokens = x.reshape(n, c, -1).transpose(1, 2)
    q, k, v = linear(tokens, s[f"{name}.qkv.weight"], s[f"{name}.qkv.bias"]).split(c, dim=-1)
    heads = []
    for h in range(0, c, 64):
        scores = torch.einsum("nld,nmd->nlm", q[..., h : h + 64], k[..., h : h + 64]) / math.sqrt(64)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(torch.einsum("nlm,nmd->nld", weights, v[..., h : h + 64]))
    out = linear(torch.cat(heads, -1), s[f"{name}.proj.weight"], s[f"{name}.proj.bias"])
    return out.transpose(1, 2).reshape(n, c, *size)


def widen_and_narrow(s: State, name: str, x: Tensor) -> Tensor:
    """The two-layer perceptron at every place, whether its layers are stored as linear or as 1x1x1 convolutions."""
    first, second = s[f"{name}.fc1.weight"].flatten(1), s[f"{name}.fc2.weight"].flatten(1)
    hidden = gelu(linear(x.movedim(1, -1), first, s[f"{name}.fc1.bias"]))
    return linear(hidden, second, s[f"{name}.fc2.bias"]).movedim(-1, 1)


def plain_uniformer(s: State, pixels: Tensor, depths: tuple[int, ...]) -> Tensor:
    x = pixels.transpose(1, 2)
    for stage, depth in enumerate(depths, start=1):
        name = f"patch_embed{stage}"
        stride, padding = ((2, 4, 4), (1, 0, 0)) if stage == 1 else ((1, 2, 2), 0)
        x = normalise_channels(s, f"{name}.norm", convolve(s, f"{name}.proj", x, stride=stride, padding=padding), 1e-5)
        for i in range(depth):
            b = f"blocks{stage}.{i}"
            x = x + convolve(s, f"{b}.pos_embed", x, padding=1, groups=x.shape[1])
            if stage <= 2:
                y = convolve(s, f"{b}.conv1", normalise_batch(s, f"{b}.norm1", x))
                y = convolve(s, f"{b}.attn", y, padding=2, groups=x.shape[1])
                x = x + convolve(s, f"{b}.conv2", y)
                x = x + widen_and_narrow(s, f"{b}.mlp", normalise_batch(s, f"{b}.norm2", x))
            else:
                x = x + attend(s, f"{b}.attn", normalise_channels(s, f"{b}.norm1", x, 1e-6))
                x = x + widen_and_narrow(s, f"{b}.mlp", normalise_channels(s, f"{b}.norm2", x, 1e-6))
    return linear(normalise_batch(s, "norm", x).flatten(2).mean(-1), s["head.weight"], s["head.bias"])


def plain_c3d(s: State, pixels: Tensor) -> Tensor:
    x = pixels.transpose(1, 2)
    for stage, (names, pool) in enumerate([("a", 1), ("a", 2), ("ab", 2), ("ab", 2), ("ab", 2)], start=1):
        for name in names:
            x = convolve(s, f"backbone.conv{stage}{name}.conv", x, padding=1).clamp(min=0)
        x = max_pool3d(x, (pool, 2, 2), stride=(pool, 2, 2), padding=(0, 1, 1) if stage == 5 else 0)
    x = x.reshape(len(x), 8192)
    for name in ("backbone.fc6", "backbone.fc7"):
        x = linear(x, s[f"{name}.weight"], s[f"{name}.bias"]).clamp(min=0)
    return linear(x, s["cls_head.fc_cls.weight"], s["cls_head.fc_cls.bias"])


@pytest.mark.parametrize("size", [(4, 32, 32), (5, 64, 32)])
def test_uniformer_equals_its_plain_formulation(size: tuple[int, int, int]) -> None:
    network = randomised(UniFormer(depths=DEPTHS["small"], num_labels=5))
    frames, height, width = size
    pixels = torch.randn(2, frames, 3, height, width)
    with torch.inference_mode():
        expected = plain_uniformer(network.state_dict(), pixels, DEPTHS["small"])
        torch.testing.assert_close(network(pixels).logits, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 1e-2


def test_c3d_equals_its_plain_formulation() -> None:
    network = randomised(C3d(num_labels=5))
    pixels = torch.randn(1, 16, 3, 112, 112) * 50
    with torch.inference_mode():
        expected = plain_c3d(network.state_dict(), pixels)
        torch.testing.assert_close(network(pixels).logits, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 1e-3


def millions(network: torch.nn.Module) -> float:
    return round(sum(p.numel() for p in network.parameters()) / 1e6, 1)


def test_sizes_are_the_published_ones() -> None:
    assert millions(C3d(num_labels=101)) == 78.4  # MMAction2's table, UCF101
    with torch.device("meta"):
        assert millions(UniFormer(depths=DEPTHS["small"], num_labels=400)) == 21.4
        assert millions(UniFormer(depths=DEPTHS["base"], num_labels=400)) == 49.8


def test_key_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        uniformer = set(UniFormer(depths=DEPTHS["small"], num_labels=400).state_dict())
        c3d = set(C3d(num_labels=101).state_dict())
    assert {
        "patch_embed1.proj.weight",
        "patch_embed4.norm.bias",
        "blocks1.2.pos_embed.weight",
        "blocks2.3.attn.bias",
        "blocks2.0.conv1.weight",
        "blocks2.0.norm2.running_var",
        "blocks3.7.attn.qkv.bias",
        "blocks4.2.mlp.fc2.weight",
        "norm.running_mean",
        "head.bias",
    } <= uniformer
    assert c3d == {
        *(
            f"backbone.conv{n}.conv.{p}"
            for n in ("1a", "2a", "3a", "3b", "4a", "4b", "5a", "5b")
            for p in ("weight", "bias")
        ),
        *(f"{layer}.{p}" for layer in ("backbone.fc6", "backbone.fc7", "cls_head.fc_cls") for p in ("weight", "bias")),
    }


def test_avslowfast_without_sound_is_slowfast() -> None:
    """Its visual pathways are SlowFast's, held to PyTorchVideo elsewhere, under other names at the fusions."""
    deaf = randomised(AvSlowFast(num_labels=5))
    state = {}
    for key, value in deaf.state_dict().items():
        if ".multipathway_blocks.2." in key or "block_audio_to_fastslow" in key:
            continue
        key = key.replace("block_fast_to_slow.0", "conv_fast_to_slow").replace("block_fast_to_slow.1", "norm")
        state[key] = value[:, : 2048 + 256] if key == "blocks.6.proj.weight" else value
    seeing = SlowFast(depth=50, num_labels=5).eval()
    seeing.load_state_dict(state, strict=True)
    generator = torch.Generator().manual_seed(2)
    pixels, log_mel = torch.randn(2, 32, 3, 32, 32, generator=generator), torch.randn(2, 128, 80, generator=generator)
    with torch.inference_mode():
        expected = seeing(pixels).logits
        heard = deaf(pixels, log_mel, torch.tensor([False, True])).logits
    scale = expected.abs().max()
    torch.testing.assert_close(heard[0] / scale, expected[0] / scale, atol=1e-5, rtol=0)
    assert (heard[1] - expected[1]).abs().max() / scale > 1e-3


def test_the_sound_pathway_of_avslowfast_written_out() -> None:
    """The stem, a stage of each kind and a fusion, by plain convolutions of frames by bands."""
    network = randomised(AvSlowFast(num_labels=5))
    s = network.state_dict()

    def conv(name: str, x: Tensor, *, stride: tuple[int, int] = (1, 1)) -> Tensor:
        weight = s[f"{name}.weight"].squeeze(3)  # [out, in, time, bands]: the height of sound is 1
        padding = [size // 2 for size in weight.shape[2:]]
        return torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding)

    def block(name: str, x: Tensor, *, stride: int) -> Tensor:
        y = normalise_batch(s, f"{name}.branch2.norm_a", conv(f"{name}.branch2.conv_a", x, stride=(stride, 1))).relu()
        parts = [".0", ".1"] if f"{name}.branch2.conv_b.0.weight" in s else [""]
        # A stride in time of the second convolution falls on a height of 1: only its bands are thinned.
        thinned = [conv(f"{name}.branch2.conv_b{part}", y, stride=(1, stride)) for part in parts]
        y = sum(normalise_batch(s, f"{name}.branch2.norm_b{p}", t).relu() for p, t in zip(parts, thinned, strict=True))
        y = normalise_batch(s, f"{name}.branch2.norm_c", conv(f"{name}.branch2.conv_c", y))
        if f"{name}.branch1_conv.weight" in s:
            x = normalise_batch(s, f"{name}.branch1_norm", conv(f"{name}.branch1_conv", x, stride=(stride, stride)))
        return (x + y).relu()

    x = torch.randn(1, 1, 128, 80, generator=torch.Generator().manual_seed(4))
    expected = x
    stem = "blocks.0.multipathway_blocks.2"
    expected = sum(conv(f"{stem}.conv.convs.{i}", expected) for i in (0, 1))
    expected = normalise_batch(s, f"{stem}.norm", expected).relu()
    heard = x.unsqueeze(3)
    shapes = []
    with torch.inference_mode():
        for stage, (depth, stride) in enumerate([(0, 1), (3, 1), (4, 2), (6, 2), (3, 2)]):
            heard = network.blocks[stage].multipathway_blocks[2](heard)
            for i in range(depth):
                name = f"blocks.{stage}.multipathway_blocks.2.res_blocks.{i}"
                expected = block(name, expected, stride=stride if i == 0 else 1)
            torch.testing.assert_close(heard.squeeze(3), expected, atol=1e-3, rtol=1e-3)
            shapes.append(tuple(heard.shape[1:]))
    assert shapes == [(32, 128, 1, 80), (128, 128, 1, 80), (256, 64, 1, 40), (512, 32, 1, 20), (1024, 16, 1, 10)]
