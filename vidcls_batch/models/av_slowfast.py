"""AVSlowFast (Xiao et al. 2020, arXiv:2001.08740): SlowFast with a third pathway that hears, joined to the slow one.

Architecture, module names and shapes are those of PyTorchVideo 0.1.5's `create_audio_visual_slowfast` at its defaults
(depth 50): slow 8 frames, fast 32, sound 128 frames of 80 mel bands. No published weights of that form are known here.
With S the stage (0: the stem) and i the block:

- `blocks.S.multipathway_blocks.0`, `.1`: the slow and the fast pathway, as in SlowFast (slowfast.py).
- `blocks.0.multipathway_blocks.2.conv.convs.0`, `.1`: the sound's stem, [9, 1, 1] over time and [1, 1, 9] over bands,
  summed.
- `blocks.S.multipathway_blocks.2.res_blocks.i`: half the slow pathway's width. Stages 1 and 2 have `conv_b.0` over
  bands and `conv_b.1` over time, summed; stages 3 and 4 have one `conv_b` [3, 1, 3].
- `blocks.S.multipathway_fusion.block_fast_to_slow.0` (and its norm, `.1`): [7, 1, 1], stride 4 in time, to a quarter of
  the slow pathway's width.
- `blocks.S.multipathway_fusion.block_audio_to_fastslow.0`, `.3` (and norms): two [5, 1, 1] over the mean of the bands;
  the second is strided to the slow pathway's frames and as wide as the slow pathway and what the fast one hands over.
- `blocks.6.proj`: 2048 slow, 256 fast and 1024 sound channels to labels.
"""

import torch
from torch import Tensor, nn

from vidcls_batch.models.base import Scores
from vidcls_batch.models.log_mel import LogMelInput, MelSpec
from vidcls_batch.models.recipes import AUDIOSET_MEAN, AUDIOSET_STD, KINETICS_MEAN, KINETICS_STD, square
from vidcls_batch.models.resnet3d import DEPTHS, Head, ResStage, Stem, pool_windows
from vidcls_batch.models.slowfast import (
    ALPHA,
    BETA_INVERSE,
    FAST_KERNELS_T,
    FUSION_RATIO,
    SLOW_KERNELS_T,
)
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.types import Sampling

AUDIO_REDUCTION = 2  # the slow pathway has so many times the sound's channels
AUDIO_STRIDES = (1, 2, 2, 2)  # of each stage, in time and in bands
SEPARABLE = (True, True, False, False)
TO_SLOW_STRIDES = (16, 16, 8, 4)  # from the sound's frames to the slow pathway's 8
SLOW_FRAMES = 8

# The paper's: 80 bands, 128 frames, 32 ms every 16 ms at 16 kHz. Window, edges of the bands and normalisation are not
# said there: Hann, 0 to 8 kHz on the HTK scale, and AST's mean and deviation here.
HEARD = LogMelInput(
    mel=MelSpec(
        sample_rate=16_000,
        num_mels=80,
        frame_samples=512,
        hop_samples=256,
        fft_samples=512,
        low_hz=0,
        high_hz=8_000,
        scale="htk",
        periodic_window=True,
        centered=False,
        floor=1.192092955078125e-07,
        decibels=False,
    ),
    num_frames=128,
    mean=AUDIOSET_MEAN,
    std=AUDIOSET_STD,
)


class SummedConv(nn.Module):
    """One convolution over time and one over bands, summed."""

    def __init__(self, width: int, *, kernel: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Conv3d(1, width, (kernel, 1, 1), padding=(kernel // 2, 0, 0), bias=False),
                nn.Conv3d(1, width, (1, 1, kernel), padding=(0, 0, kernel // 2), bias=False),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, T, 1, F] to [N, C, T, 1, F]."""
        summed: Tensor = self.convs[0](x) + self.convs[1](x)
        return summed


class AudioStem(nn.Module):
    """No stride and no pool: the sound keeps its frames and bands."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = SummedConv(width, kernel=9)
        self.norm = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, T, 1, F] to [N, C, T, 1, F]."""
        return torch.relu(self.norm(self.conv(x)))


class AudioBottleneck(nn.Module):
    """1, then 3 over time and 3 over bands (side by side and summed where `separable`), then 1."""

    def __init__(self, width_in: int, inner: int, width_out: int, *, stride: int, separable: bool) -> None:
        super().__init__()
        self.separable = separable
        self.conv_a = nn.Conv3d(width_in, inner, 1, stride=(stride, 1, 1), bias=False)
        self.norm_a = nn.BatchNorm3d(inner)
        step = (1, stride, stride)
        self.conv_b: nn.Module
        self.norm_b: nn.Module
        if separable:
            self.conv_b = nn.ModuleList(
                [
                    nn.Conv3d(inner, inner, (1, 1, 3), stride=step, padding=(0, 0, 1), bias=False),
                    nn.Conv3d(inner, inner, (3, 1, 1), stride=step, padding=(1, 0, 0), bias=False),
                ]
            )
            self.norm_b = nn.ModuleList([nn.BatchNorm3d(inner), nn.BatchNorm3d(inner)])
        else:
            self.conv_b = nn.Conv3d(inner, inner, (3, 1, 3), stride=step, padding=(1, 0, 1), bias=False)
            self.norm_b = nn.BatchNorm3d(inner)
        self.conv_c = nn.Conv3d(inner, width_out, 1, bias=False)
        self.norm_c = nn.BatchNorm3d(width_out)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, T, 1, F] in and out."""
        x = torch.relu(self.norm_a(self.conv_a(x)))
        if isinstance(self.conv_b, nn.ModuleList) and isinstance(self.norm_b, nn.ModuleList):
            bands, time = (torch.relu(n(c(x))) for c, n in zip(self.conv_b, self.norm_b, strict=True))
            x = bands + time
        else:
            x = torch.relu(self.norm_b(self.conv_b(x)))
        out: Tensor = self.norm_c(self.conv_c(x))
        return out


class AudioResBlock(nn.Module):
    """A bottleneck and its shortcut, projected where the shape changes."""

    def __init__(self, width_in: int, inner: int, width_out: int, *, stride: int, separable: bool) -> None:
        super().__init__()
        self.branch1_conv: nn.Module | None = None
        self.branch1_norm: nn.Module | None = None
        if width_in != width_out or stride != 1:
            self.branch1_conv = nn.Conv3d(width_in, width_out, 1, stride=stride, bias=False)
            self.branch1_norm = nn.BatchNorm3d(width_out)
        self.branch2 = AudioBottleneck(width_in, inner, width_out, stride=stride, separable=separable)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, T, 1, F] in and out."""
        shortcut = x
        if self.branch1_conv is not None and self.branch1_norm is not None:
            shortcut = self.branch1_norm(self.branch1_conv(x))
        return torch.relu(shortcut + self.branch2(x))


class AudioStage(nn.Module):
    """Blocks of one width; the first one changes the shape."""

    def __init__(self, width_in: int, inner: int, width_out: int, *, depth: int, stride: int, separable: bool) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(
            AudioResBlock(
                width_in if i == 0 else width_out,
                inner,
                width_out,
                stride=stride if i == 0 else 1,
                separable=separable,
            )
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, T, 1, F] in and out."""
        for block in self.res_blocks:
            x = block(x)
        return x


class SoundAndFastToSlow(nn.Module):
    """The fast pathway's features join the slow one's channels; the sound's are added to both, alike at all places."""

    def __init__(self, width: int, *, stride: int) -> None:
        super().__init__()
        fast, handed = width // BETA_INVERSE, width // BETA_INVERSE * FUSION_RATIO
        sound = width // AUDIO_REDUCTION
        self.block_fast_to_slow = nn.Sequential(
            nn.Conv3d(fast, handed, (7, 1, 1), stride=(ALPHA, 1, 1), padding=(3, 0, 0), bias=False),
            nn.BatchNorm3d(handed),
            nn.ReLU(),
        )
        self.block_audio_to_fastslow = nn.Sequential(
            nn.Conv3d(sound, sound // 4, (5, 1, 1), padding=(2, 0, 0), bias=False),
            nn.BatchNorm3d(sound // 4),
            nn.ReLU(),
            nn.Conv3d(sound // 4, handed + width, (5, 1, 1), stride=(stride, 1, 1), padding=(2, 0, 0), bias=False),
            nn.BatchNorm3d(handed + width),
            nn.ReLU(),
        )

    def forward(self, slow: Tensor, fast: Tensor, sound: Tensor, has_sound: Tensor) -> Tensor:
        """Features [N, C, T, H, W] of all three to the slow pathway's; `has_sound` [N, 1, 1, 1, 1] is 1 or 0."""
        seen = torch.cat([slow, self.block_fast_to_slow(fast)], dim=1)
        heard: Tensor = self.block_audio_to_fastslow(sound.mean(dim=-1, keepdim=True))
        return seen + heard * has_sound


class ThreePathways(nn.Module):
    """One stage of all three, and what is handed over after it."""

    def __init__(self, slow: nn.Module, fast: nn.Module, sound: nn.Module, *, fusion: nn.Module | None) -> None:
        super().__init__()
        self.multipathway_blocks = nn.ModuleList([slow, fast, sound])
        self.multipathway_fusion = fusion

    def forward(self, slow: Tensor, fast: Tensor, sound: Tensor, has_sound: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [N, C, T, H, W] of all three, in and out."""
        slow, fast, sound = (block(x) for block, x in zip(self.multipathway_blocks, (slow, fast, sound), strict=True))
        if self.multipathway_fusion is not None:
            slow = self.multipathway_fusion(slow, fast, sound, has_sound)
        return slow, fast, sound


class PoolAll(nn.Module):
    """Each pathway pooled over windows of the published size, then over all of them, and joined in channels."""

    def forward(self, slow: Tensor, fast: Tensor, sound: Tensor, has_sound: Tensor) -> Tensor:
        """Features [N, C, T, H, W] of all three to one [N, C, 1, 1, 1]."""
        windows = ((SLOW_FRAMES, 7, 7), (SLOW_FRAMES * ALPHA, 7, 7), (16, 1, 10))
        slow, fast, sound = (
            pool_windows(x, window).mean(dim=(2, 3, 4), keepdim=True)
            for x, window in zip((slow, fast, sound), windows, strict=True)
        )
        return torch.cat([slow, fast, sound * has_sound], dim=1)


class AvSlowFast(nn.Module):
    """Pixels [N, 32, 3, H, W] and log-mel [N, 128, 80] to Scores. A clip without sound is seen only: its sound adds
    nothing anywhere, as when training drops the pathway.
    """

    def __init__(self, *, num_labels: int, depth: int = 50) -> None:
        super().__init__()
        blocks: list[nn.Module] = [
            ThreePathways(
                Stem(64, kernel_t=1),
                Stem(64 // BETA_INVERSE, kernel_t=5),
                AudioStem(64 // AUDIO_REDUCTION),
                fusion=SoundAndFastToSlow(64, stride=TO_SLOW_STRIDES[0]),
            )
        ]
        width = 64
        for stage, num_blocks in enumerate(DEPTHS[depth]):
            inner, stride = 64 * 2**stage, 1 if stage == 0 else 2
            slow = ResStage(
                width + width // BETA_INVERSE * FUSION_RATIO,
                inner,
                4 * inner,
                depth=num_blocks,
                stride=stride,
                kernels_t=(SLOW_KERNELS_T[stage],),
            )
            fast = ResStage(
                width // BETA_INVERSE,
                inner // BETA_INVERSE,
                4 * inner // BETA_INVERSE,
                depth=num_blocks,
                stride=stride,
                kernels_t=(FAST_KERNELS_T[stage],),
            )
            sound = AudioStage(
                width // AUDIO_REDUCTION,
                inner // AUDIO_REDUCTION,
                4 * inner // AUDIO_REDUCTION,
                depth=num_blocks,
                stride=AUDIO_STRIDES[stage],
                separable=SEPARABLE[stage],
            )
            width = 4 * inner
            last = stage == len(DEPTHS[depth]) - 1
            fusion = None if last else SoundAndFastToSlow(width, stride=TO_SLOW_STRIDES[stage + 1])
            blocks.append(ThreePathways(slow, fast, sound, fusion=fusion))
        blocks.append(PoolAll())
        blocks.append(Head(width + width // BETA_INVERSE + width // AUDIO_REDUCTION, num_labels, pool=None))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor, log_mel: Tensor, has_sound: Tensor) -> Scores:
        """Normalised pixels and log-mel; `has_sound` bool [N]."""
        fast = pixels.transpose(1, 2)
        # PyTorchVideo's PackPathway: the first and the last frame, evenly between, rounded down.
        picked = torch.linspace(0, fast.shape[2] - 1, SLOW_FRAMES).long()
        slow = fast[:, :, picked.to(fast.device)]
        sound = log_mel[:, None, :, None, :]
        here = has_sound.to(pixels.dtype).view(-1, 1, 1, 1, 1)
        for block in self.blocks[:-2]:
            slow, fast, sound = block(slow, fast, sound, here)
        scores: Scores = self.blocks[-1](self.blocks[-2](slow, fast, sound, here))
        return scores


R50 = StateDictFamily(
    build=lambda num_labels: AvSlowFast(num_labels=num_labels),
    head_weight="blocks.6.proj.weight",
    sampling=Sampling(num_frames=32, rule="stride", stride=2),
    recipe=lambda sampling: square(sampling, 224, short_side=256, mean=KINETICS_MEAN, std=KINETICS_STD),
    embedding_dim=2048 + 256 + 1024,
    heard=HEARD,
)
