"""torchvision's video networks, from the state dicts it publishes (extra `torchvision`)."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from vidcls_batch.models.base import InputSpec, Network, Scores
from vidcls_batch.models.recipes import IMAGENET_MEAN, IMAGENET_STD, KINETICS_MEAN, KINETICS_STD, Rgb, square, stretched
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.models.torchvision_import import import_torchvision
from vidcls_batch.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor, nn

# Of the weights trained by torchvision itself (R3D, MC3, R(2+1)D, S3D).
TORCHVISION_MEAN: Rgb = (0.43216, 0.394666, 0.37645)
TORCHVISION_STD: Rgb = (0.22803, 0.22145, 0.216989)


def _build(name: str) -> "Callable[[int], nn.Module]":
    def build(num_labels: int) -> "nn.Module":
        import_torchvision()
        from torchvision.models import get_model

        network: nn.Module = get_model(name, weights=None, num_classes=num_labels)
        return network

    return build


def _split_head(attribute: str) -> "Callable[[nn.Module], Network]":
    """The network without its last layer, and that layer: embeddings on the way to logits."""

    def adapt(module: "nn.Module") -> Network:
        from torch import nn

        head = module.get_submodule(attribute)
        setattr(module, attribute, nn.Identity())
        takes_grid = any(isinstance(layer, nn.Conv3d) for layer in head.modules())

        def network(pixels: "Tensor") -> Scores:
            embeddings = module(pixels.transpose(1, 2))
            logits = head(embeddings[:, :, None, None, None]).flatten(1) if takes_grid else head(embeddings)
            return Scores(logits=logits, embeddings=embeddings)

        return network

    return adapt


def _resnet(name: str) -> StateDictFamily:
    # torchvision squeezes frames to 128x171 whatever their shape; ours keep theirs (see docs/models.md).
    recipe = partial(square, size=112, short_side=128, mean=TORCHVISION_MEAN, std=TORCHVISION_STD)
    return StateDictFamily(
        build=_build(name),
        adapt=_split_head("fc"),
        head_weight="fc.weight",
        sampling=Sampling(num_frames=16, rule="fps", fps=15.0),
        fixed_frames=False,
        recipe=recipe,
        embedding_dim=512,
    )


def _s3d_recipe(sampling: Sampling) -> InputSpec:
    return stretched(square(sampling, 224, short_side=256, mean=TORCHVISION_MEAN, std=TORCHVISION_STD))


def _mvit(name: str) -> StateDictFamily:
    return StateDictFamily(
        build=_build(name),
        adapt=_split_head("head"),
        head_weight="head.1.weight",
        sampling=Sampling(num_frames=16, rule="fps", fps=7.5),
        recipe=partial(square, size=224, short_side=256, mean=KINETICS_MEAN, std=KINETICS_STD),
        any_size=False,
        embedding_dim=768,
    )


def _swin(name: str, *, width: int) -> StateDictFamily:
    return StateDictFamily(
        build=_build(name),
        adapt=_split_head("head"),
        head_weight="head.weight",
        sampling=Sampling(num_frames=32, rule="fps", fps=15.0),
        fixed_frames=False,
        recipe=partial(square, size=224, short_side=256, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        embedding_dim=width,
    )


R3D_18 = _resnet("r3d_18")
MC3_18 = _resnet("mc3_18")
R2PLUS1D_18 = _resnet("r2plus1d_18")
S3D = StateDictFamily(
    build=_build("s3d"),
    adapt=_split_head("classifier"),
    head_weight="classifier.1.weight",
    # The published accuracy is of one long clip; any number of frames from 14 on works.
    sampling=Sampling(num_frames=128, rule="fps", fps=15.0),
    fixed_frames=False,
    min_frames=14,
    recipe=_s3d_recipe,
    any_size=False,
    embedding_dim=1024,
)
MVIT_V1_B = _mvit("mvit_v1_b")
MVIT_V2_S = _mvit("mvit_v2_s")
SWIN3D_T = _swin("swin3d_t", width=768)
SWIN3D_S = _swin("swin3d_s", width=768)
SWIN3D_B = _swin("swin3d_b", width=1024)
