"""The table that `vidcls models` prints, against parameters and multiply-adds counted on networks without memory."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidcls_batch.models.families import PublishedModel
from vidcls_batch.models.registry import family_facts, list_families, open_family
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.models.torchvision_import import import_torchvision, prepare_transformers

# torch counts convolutions and matrix products; fvcore, which the zoos used, norms and pools too.
FLOPS_TOLERANCE = 0.09
PARAMETERS_TOLERANCE = 0.015

# name of the published model -> transformers' configuration and model class, what differs from the defaults.
TRANSFORMERS: dict[str, tuple[str, str, dict[str, object]]] = {
    "VideoMAE-B": ("VideoMAEConfig", "VideoMAEForVideoClassification", {"num_labels": 400}),
    "VideoMAE-L": (
        "VideoMAEConfig",
        "VideoMAEForVideoClassification",
        {
            "num_labels": 400,
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
    ),
    "TimeSformer": ("TimesformerConfig", "TimesformerForVideoClassification", {"num_labels": 400}),
    "ViViT-B/16x2": ("VivitConfig", "VivitForVideoClassification", {"num_labels": 400}),
    "V-JEPA 2 ViT-L 16 frames": (
        "VJEPA2Config",
        "VJEPA2ForVideoClassification",
        {"num_labels": 400, "frames_per_clip": 16},
    ),
    "X-CLIP-B/32 8 frames": ("XCLIPConfig", "XCLIPModel", {}),
    "X-CLIP-B/16 8 frames": ("XCLIPConfig", "XCLIPModel", {"vision_config": {"patch_size": 16}}),
    "CLIP-B/32": ("CLIPConfig", "CLIPModel", {}),
    "SigLIP-B/16": ("SiglipConfig", "SiglipModel", {}),
}
# The published head is not the 400 labels of Kinetics.
OTHER_LABELS = {"C3D": 101}


def models() -> list[tuple[str, PublishedModel]]:
    return [(facts.family, model) for facts in list_families() if facts.available for model in facts.models]


def build(family: str, model: PublishedModel) -> tuple[nn.Module, Callable[[nn.Module], object]] | None:
    """The network on the meta device, and one view through it; None for those that nobody can build from here."""
    implementation = open_family(family)
    if isinstance(implementation, StateDictFamily):
        spec = implementation.recipe(implementation.sampling)
        network = implementation.build(OTHER_LABELS.get(model.name, 400))
        shape = (1, implementation.sampling.num_frames, 3, spec.height, spec.width)
        return network, lambda net: (net if implementation.adapt is None else implementation.adapt(net))(
            torch.empty(shape)
        )
    if model.name not in TRANSFORMERS:
        return None
    prepare_transformers()
    import transformers

    config_class, model_class, changes = TRANSFORMERS[model.name]
    config = getattr(transformers, config_class)(**changes)
    vision = getattr(config, "vision_config", config)
    frames = getattr(vision, "num_frames", None) or getattr(vision, "frames_per_clip", 1)
    size = getattr(vision, "image_size", None) or vision.crop_size
    network = getattr(transformers, model_class)(config)
    if family == "xclip":
        return network, lambda net: net.get_video_features(torch.empty(1, frames, 3, size, size))
    return network, lambda net: net(torch.empty(1, frames, 3, size, size))


@pytest.mark.parametrize(("family", "model"), [pytest.param(f, m, id=m.name) for f, m in models()])
def test_published_size_and_cost_are_those_of_our_network(family: str, model: PublishedModel) -> None:
    with torch.device("meta"):
        built = build(family, model)
        if built is None:
            pytest.skip("counted once from the published checkpoint; its source says so")
        network, run = built
        network.eval()
        parameters = sum(p.numel() for p in network.parameters()) / 1e6
        assert parameters == pytest.approx(model.parameters_m, rel=PARAMETERS_TOLERANCE, abs=0.051)
        if model.gflops_per_view is None:
            return
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            run(network)
    multiply_adds = counted.get_total_flops() / 2e9  # torch counts both
    assert multiply_adds == pytest.approx(model.gflops_per_view, rel=FLOPS_TOLERANCE)


@pytest.mark.parametrize(
    ("family", "model"), [pytest.param(f, m, id=f) for f, m in models() if m.source.startswith("torchvision")]
)
def test_figures_said_to_be_torchvisions_are_in_its_metadata(family: str, model: PublishedModel) -> None:
    zoo = import_torchvision().models
    published = zoo.get_model_weights(family)["KINETICS400_V1"].meta
    assert model.parameters_m == pytest.approx(published["num_params"] / 1e6, abs=0.051)
    implementation = open_family(family)
    assert isinstance(implementation, StateDictFamily)
    assert model.gflops_per_view == pytest.approx(
        published["_ops"] * implementation.sampling.num_frames / 16, abs=0.051
    )
    assert model.k400_top1 == pytest.approx(published["_metrics"]["Kinetics-400"]["acc@1"], abs=0.051)


def test_every_figure_has_its_source_and_views() -> None:
    for facts in list_families():
        for model in facts.models:
            assert model.source
            assert model.views.count("x") == 1
            if model.k400_top1 is not None:
                assert any(word in model.source for word in ("arXiv", "github.com", "torchvision")), model.name
    assert family_facts("videomae").licence == "CC-BY-NC-4.0"
