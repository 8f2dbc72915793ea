"""UniFormer (Li et al. 2022, arXiv:2201.04676): depth-wise 3D convolutions early, joint space-time attention late.

Module names are the authors', so that their published `.pth` files load as they are.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from vidcls_batch.models.base import Scores
from vidcls_batch.models.recipes import KINETICS_MEAN, KINETICS_STD, square
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.types import Sampling

WIDTHS = (64, 128, 320, 512)
HEAD_WIDTH = 64
MLP_RATIO = 4
DEPTHS = {"small": (3, 4, 8, 3), "base": (5, 8, 20, 7)}


class PatchEmbed(nn.Module):
    """Non-overlapping patches, normalised; the first one also halves the frames."""

    def __init__(self, width_in: int, width: int, *, patch: int, halves_time: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        kernel_t, stride_t, padding_t = (3, 2, 1) if halves_time else (1, 1, 0)
        self.proj = nn.Conv3d(
            width_in,
            width,
            (kernel_t, patch, patch),
            stride=(stride_t, patch, patch),
            padding=(padding_t, 0, 0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        patches = self.proj(x)
        return _by_channel(self.norm(_by_token(patches)), patches.shape)


class ConvMlp(nn.Module):
    """Two point-wise convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(width, MLP_RATIO * width, 1)
        self.fc2 = nn.Conv3d(MLP_RATIO * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        out: Tensor = self.fc2(gelu(self.fc1(x)))
        return out


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, L, C] in and out."""
        out: Tensor = self.fc2(gelu(self.fc1(x)))
        return out


class Attention(nn.Module):
    """Every token looks at every token of the clip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = width // HEAD_WIDTH
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, L, C] in and out."""
        clips, length, width = x.shape
        qkv = self.qkv(x).view(clips, length, 3, self.num_heads, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(clips, length, width))
        return out


class ConvBlock(nn.Module):
    """Local: the `attn` is a 5x5x5 depth-wise convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.BatchNorm3d(width)
        self.conv1 = nn.Conv3d(width, width, 1)
        self.conv2 = nn.Conv3d(width, width, 1)
        self.attn = nn.Conv3d(width, width, 5, padding=2, groups=width)
        self.norm2 = nn.BatchNorm3d(width)
        self.mlp = ConvMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        x = x + self.pos_embed(x)
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class AttentionBlock(nn.Module):
    """Global: attention over all places and times."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, T, H, W] in and out."""
        x = x + self.pos_embed(x)
        tokens = _by_token(x)
        tokens = tokens + self.attn(self.norm1(tokens))
        return _by_channel(tokens + self.mlp(self.norm2(tokens)), x.shape)


class UniFormer(nn.Module):
    """Pixels [N, T, 3, H, W] to Scores."""

    def __init__(self, *, depths: tuple[int, int, int, int], num_labels: int) -> None:
        super().__init__()
        self.patch_embed1 = PatchEmbed(3, WIDTHS[0], patch=4, halves_time=True)
        self.patch_embed2 = PatchEmbed(WIDTHS[0], WIDTHS[1], patch=2)
        self.patch_embed3 = PatchEmbed(WIDTHS[1], WIDTHS[2], patch=2)
        self.patch_embed4 = PatchEmbed(WIDTHS[2], WIDTHS[3], patch=2)
        self.blocks1 = nn.ModuleList(ConvBlock(WIDTHS[0]) for _ in range(depths[0]))
        self.blocks2 = nn.ModuleList(ConvBlock(WIDTHS[1]) for _ in range(depths[1]))
        self.blocks3 = nn.ModuleList(AttentionBlock(WIDTHS[2]) for _ in range(depths[2]))
        self.blocks4 = nn.ModuleList(AttentionBlock(WIDTHS[3]) for _ in range(depths[3]))
        self.norm = nn.BatchNorm3d(WIDTHS[3])
        self.head = nn.Linear(WIDTHS[3], num_labels)

    def forward(self, pixels: Tensor) -> Scores:
        """Normalised pixels [N, T, 3, H, W]."""
        x = pixels.transpose(1, 2)
        for embed, blocks in (
            (self.patch_embed1, self.blocks1),
            (self.patch_embed2, self.blocks2),
            (self.patch_embed3, self.blocks3),
            (self.patch_embed4, self.blocks4),
        ):
            x = embed(x)
            for block in blocks:
                x = block(x)
        embeddings = self.norm(x).mean(dim=(2, 3, 4))
        return Scores(logits=self.head(embeddings), embeddings=embeddings)


def _by_token(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _by_channel(tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
    clips, _, *size = shape
    return tokens.transpose(1, 2).reshape(clips, tokens.shape[-1], *size)


def _family(size: str, *, num_frames: int) -> StateDictFamily:
    return StateDictFamily(
        build=lambda num_labels: UniFormer(depths=DEPTHS[size], num_labels=num_labels),
        head_weight="head.weight",
        sampling=Sampling(num_frames=num_frames, rule="stride", stride=4),
        fixed_frames=False,
        min_frames=2,
        # The authors train with PySlowFast's defaults and test at 224 (TRAIN_JITTER_SCALES [224, 224]).
        recipe=partial(square, size=224, mean=KINETICS_MEAN, std=KINETICS_STD),
        embedding_dim=WIDTHS[3],
    )


SMALL = _family("small", num_frames=16)
BASE = _family("base", num_frames=32)
