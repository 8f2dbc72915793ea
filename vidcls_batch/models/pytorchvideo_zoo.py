"""The networks of PyTorchVideo's model zoo on our own modules: Slow, C2D, I3D, SlowFast and X3D."""

from collections.abc import Callable
from functools import partial

from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.recipes import KINETICS_MEAN, KINETICS_STD, square
from vidcls_batch.models.resnet3d import C2D, I3D, SLOW, ResNet3d, ResNetPlan
from vidcls_batch.models.slowfast import SlowFast
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.models.x3d import HEAD_WIDTH, X3d
from vidcls_batch.types import Sampling


def _recipe(size: int) -> Callable[[Sampling], InputSpec]:
    return lambda sampling: square(sampling, size, mean=KINETICS_MEAN, std=KINETICS_STD)


def _resnet(plan: ResNetPlan) -> StateDictFamily:
    last = 6 if plan.pools_time else 5
    return StateDictFamily(
        build=lambda num_labels: ResNet3d(plan, num_labels=num_labels),
        head_weight=f"blocks.{last}.proj.weight",
        sampling=Sampling(num_frames=8, rule="stride", stride=8),
        recipe=_recipe(256),
        embedding_dim=2048,
    )


def _slowfast(depth: int) -> StateDictFamily:
    return StateDictFamily(
        build=lambda num_labels: SlowFast(depth=depth, num_labels=num_labels),
        head_weight="blocks.6.proj.weight",
        sampling=Sampling(num_frames=32, rule="stride", stride=2),
        recipe=_recipe(256),
        embedding_dim=2304,
    )


def _x3d(*, frames: int, stride: int, crop: int, size: int, depth_factor: float = 2.2) -> StateDictFamily:
    """`crop` is the side in training, `size` the side in the published test."""
    build = partial(X3d, frames=frames, crop=crop, depth_factor=depth_factor)
    return StateDictFamily(
        build=lambda num_labels: build(num_labels=num_labels),
        head_weight="blocks.5.proj.weight",
        sampling=Sampling(num_frames=frames, rule="stride", stride=stride),
        recipe=_recipe(size),
        embedding_dim=HEAD_WIDTH,
    )


SLOW_R50 = _resnet(SLOW)
C2D_R50 = _resnet(C2D)
I3D_R50 = _resnet(I3D)
SLOWFAST_R50 = _slowfast(50)
SLOWFAST_R101 = _slowfast(101)
X3D_XS = _x3d(frames=4, stride=12, crop=160, size=182)
X3D_S = _x3d(frames=13, stride=6, crop=160, size=182)
X3D_M = _x3d(frames=16, stride=5, crop=224, size=256)
X3D_L = _x3d(frames=16, stride=5, crop=312, size=312, depth_factor=5.0)
