"""C3D (Tran et al. 2015, arXiv:1412.0767): eight 3x3x3 convolutions and two wide layers, on 16 frames of 112x112.

Module names are MMAction2's, whose UCF101 checkpoint is the one in use; pixels are 0..255 minus a mean.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool3d

from vidcls_batch.models.base import InputSpec, Scores
from vidcls_batch.models.recipes import square
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.types import Sampling

WIDTH = 4096
# name, channels in, channels out; a pool follows each stage's last convolution.
CONVOLUTIONS = (
    ("conv1a", 3, 64),
    ("conv2a", 64, 128),
    ("conv3a", 128, 256),
    ("conv3b", 256, 256),
    ("conv4a", 256, 512),
    ("conv4b", 512, 512),
    ("conv5a", 512, 512),
    ("conv5b", 512, 512),
)
POOLS = {"conv1a": (1, 2, 2), "conv2a": (2, 2, 2), "conv3b": (2, 2, 2), "conv4b": (2, 2, 2), "conv5b": (2, 2, 2)}
# The last one is padded: 7x7 becomes 4x4, which the wide layers expect.
PADDING = {"conv5b": (0, 1, 1)}


class Convolution(nn.Module):
    """One convolution and its rectifier."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width_in, width_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        return torch.relu(self.conv(x))


class Backbone(nn.Module):
    """Pixels [N, 3, 16, 112, 112] to features [N, 4096]."""

    def __init__(self) -> None:
        super().__init__()
        for name, width_in, width_out in CONVOLUTIONS:
            self.add_module(name, Convolution(width_in, width_out))
        self.fc6 = nn.Linear(512 * 4 * 4, WIDTH)
        self.fc7 = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels to features, see the class."""
        for name, _, _ in CONVOLUTIONS:
            x = self.get_submodule(name)(x)
            if name in POOLS:
                x = max_pool3d(x, POOLS[name], stride=POOLS[name], padding=PADDING.get(name, (0, 0, 0)))
        return torch.relu(self.fc7(torch.relu(self.fc6(x.flatten(1)))))


class Head(nn.Module):
    """Logits."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.fc_cls = nn.Linear(WIDTH, num_labels)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, 4096] to logits [N, K]."""
        out: Tensor = self.fc_cls(x)
        return out


class C3d(nn.Module):
    """Pixels [N, 16, 3, 112, 112] to Scores."""

    def __init__(self, *, num_labels: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.cls_head = Head(num_labels)

    def forward(self, pixels: Tensor) -> Scores:
        """Pixels [N, T, 3, H, W], see the class."""
        embeddings = self.backbone(pixels.transpose(1, 2))
        return Scores(logits=self.cls_head(embeddings), embeddings=embeddings)


def _recipe(sampling: Sampling) -> InputSpec:
    spec = square(sampling, 112, short_side=128, mean=(104.0, 117.0, 128.0), std=(1.0, 1.0, 1.0))
    return replace(spec, scale=1.0)


FAMILY = StateDictFamily(
    build=lambda num_labels: C3d(num_labels=num_labels),
    head_weight="cls_head.fc_cls.weight",
    sampling=Sampling(num_frames=16, rule="stride", stride=1),
    recipe=_recipe,
    any_size=False,
    embedding_dim=WIDTH,
)
