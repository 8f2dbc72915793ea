"""Waveforms to log-mel pictures, batched, on the waveforms' own device."""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, cast

from vidcls_batch.models.base import Sound
from vidcls_batch.types import SoundWindow

if TYPE_CHECKING:
    from torch import Tensor

MelScale = Literal["kaldi", "htk", "slaney"]


@dataclass(frozen=True, slots=True)
class MelSpec:
    """How a network's authors made pictures of sound: frames of `frame_samples` every `hop_samples`, a Hann window, the
    power in `num_mels` triangular bands from `low_hz` to `high_hz`, its logarithm.

    `kaldi` bands are triangles on the mel axis, the others on the axis of frequency; `slaney` bands have equal areas.
    """

    sample_rate: int
    num_mels: int
    frame_samples: int
    hop_samples: int
    fft_samples: int
    low_hz: float
    high_hz: float
    scale: MelScale
    periodic_window: bool
    centered: bool  # frames are centred on their time: the ends are mirrored
    floor: float
    decibels: bool  # else the natural logarithm
    preemphasis: float = 0.0
    remove_offset: bool = False  # of each frame

    def num_frames(self, lengths: "Tensor") -> "Tensor":
        """How many frames so many samples make, int64."""
        padded = lengths + 2 * (self.frame_samples // 2) if self.centered else lengths
        frames = (padded - self.frame_samples).div(self.hop_samples, rounding_mode="floor") + 1
        return frames.clamp_min(0).where(lengths > 0, 0)


def log_mel(samples: "Tensor", spec: MelSpec) -> "Tensor":
    """Samples float32 [N, S] to float32 [N, frames, mels].

    Transformed in float64: in float32 what a loud tone's transform is rounded by is louder than a quiet band.
    """
    import torch

    waves = samples.double()
    if spec.centered:
        edge = spec.frame_samples // 2
        waves = torch.nn.functional.pad(waves.unsqueeze(1), (edge, edge), mode="reflect").squeeze(1)
    frames = waves.unfold(1, spec.frame_samples, spec.hop_samples)
    if spec.remove_offset:
        frames = frames - frames.mean(dim=-1, keepdim=True)
    if spec.preemphasis:
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = frames - spec.preemphasis * before
    window = torch.hann_window(
        spec.frame_samples, periodic=spec.periodic_window, dtype=torch.float64, device=samples.device
    )
    transformed = torch.fft.rfft(frames * window, n=spec.fft_samples)
    # From here on all is positive: nothing cancels, and float32 is enough.
    power = (transformed.real.square() + transformed.imag.square()).float()
    bands = (power @ mel_bands(spec).to(samples.device)).clamp_min(spec.floor)
    return cast("Tensor", 10 * bands.log10() if spec.decibels else bands.log())


@lru_cache(maxsize=8)
def mel_bands(spec: MelSpec) -> "Tensor":
    """Weight of each frequency in each band, float32 [fft_samples // 2 + 1, num_mels]."""
    import torch
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        # AST's lowest bands are narrower than its transform's steps: some are empty, as published.
        warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
        bands = mel_filter_bank(
            num_frequency_bins=spec.fft_samples // 2 + 1,
            num_mel_filters=spec.num_mels,
            min_frequency=spec.low_hz,
            max_frequency=spec.high_hz,
            sampling_rate=spec.sample_rate,
            norm="slaney" if spec.scale == "slaney" else None,
            mel_scale=spec.scale,
            triangularize_in_mel_space=spec.scale == "kaldi",
        )
    return torch.from_numpy(bands).float()


def padded_log_mel(sound: Sound, spec: MelSpec, *, num_frames: int) -> "Tensor":
    """`log_mel` float32 [N, num_frames, mels]; 0 behind a clip's own frames, all 0 for a clip too short for one."""
    import torch

    samples = sound.samples
    if samples.shape[1] < spec.frame_samples:
        samples = torch.nn.functional.pad(samples, (0, spec.frame_samples - samples.shape[1]))
    mel = log_mel(samples, spec)[:, :num_frames]
    own = torch.arange(mel.shape[1], device=mel.device) < spec.num_frames(sound.lengths).unsqueeze(1)
    mel = mel.where(own.unsqueeze(2), 0)
    return torch.nn.functional.pad(mel, (0, 0, 0, num_frames - mel.shape[1]))


@dataclass(frozen=True, slots=True)
class LogMelInput:
    """Pictures of a fixed number of frames, `(mel - mean) / (2 std)` as AST's authors normalise them."""

    mel: MelSpec
    num_frames: int
    mean: float
    std: float

    @property
    def window(self) -> SoundWindow:
        """As much sound as fills all frames."""
        return SoundWindow(self.mel.sample_rate, (self.num_frames - 1) * self.mel.hop_samples + self.mel.frame_samples)

    def features(self, sound: Sound) -> "Tensor":
        """Float32 [N, num_frames, mels]."""
        return (padded_log_mel(sound, self.mel, num_frames=self.num_frames) - self.mean) / (2 * self.std)


def kaldi_mel(*, sample_rate: int, num_mels: int) -> MelSpec:
    """Kaldi's bands and frames at 16 kHz (25 ms every 10 ms), as AST and this project's networks see them."""
    return MelSpec(
        sample_rate=sample_rate,
        num_mels=num_mels,
        frame_samples=400,
        hop_samples=160,
        fft_samples=512,
        low_hz=20,
        high_hz=sample_rate // 2,
        scale="kaldi",
        periodic_window=False,
        centered=False,
        floor=1.192092955078125e-07,  # float32's epsilon
        decibels=False,
        preemphasis=0.97,
        remove_offset=True,
    )


def repeated(sound: Sound, *, num_samples: int, whole: bool) -> "Tensor":
    """Each clip's sound over and over to float32 [N, num_samples]; `whole`: whole times only, then zeros."""
    import torch

    # Asked on CPUs alone, where going on costs a tenth of the picture: a GPU would have to finish what is queued first.
    if sound.samples.is_cpu and sound.samples.shape[1] == num_samples and bool((sound.lengths == num_samples).all()):
        return sound.samples
    length = sound.lengths.clamp(1, num_samples).unsqueeze(1)
    position = torch.arange(num_samples, device=sound.samples.device).unsqueeze(0)
    filled = num_samples // length * length if whole else torch.full_like(length, num_samples)
    samples = sound.samples.gather(1, (position % length).expand(len(sound), -1))
    return samples.where((position < filled) & (sound.lengths.unsqueeze(1) > 0), 0)
