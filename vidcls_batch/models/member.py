"""A loaded member: uint8 frames and, for members that hear, sound in, logits per view out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import CheckpointRecord, InputSpec, Network, Scores, Sound
from vidcls_batch.types import SoundWindow

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LoadedMember:
    """A member on its device; see the protocol `Member`."""

    name: str
    input: InputSpec | None
    labels: tuple[str, ...]
    record: CheckpointRecord
    device: str
    dtype: "torch.dtype"
    network: Network
    sound: SoundWindow | None = None

    @property
    def num_views(self) -> int:
        """What is scored and averaged of each clip."""
        return 1 if self.input is None else self.input.sampling.num_views

    def logits(self, frames: "Tensor | None", sound: Sound | None = None) -> "Tensor":
        """Logits float32 [B, V, K] of frames uint8 [B, slots, H, W, 3] and sound, each where the member has an input
        for it; raises ValueError on another shape, dtype or rate.
        """
        return self.score(frames, sound).logits

    def score(self, frames: "Tensor | None", sound: Sound | None = None) -> Scores:
        """Logits float32 [B, V, K] and, where the family has them, embeddings, context and `present` [B, V, ...]."""
        import torch

        clips = self._check_frames(frames)
        if self.sound is not None:
            clips = self._check_sound(sound, clips)
        with torch.inference_mode():
            scores = self._run(frames, sound)
        views = self.num_views
        if scores.logits.shape != (clips * views, len(self.labels)):
            raise CheckpointError(
                f"{self.name}: the network gave logits {tuple(scores.logits.shape)} for {clips * views} views and "
                f"{len(self.labels)} labels; the checkpoint's label list is not its head's"
            )
        return Scores(
            logits=scores.logits.float().view(clips, views, -1),
            embeddings=None if scores.embeddings is None else scores.embeddings.float().view(clips, views, -1),
            context=None if scores.context is None else scores.context.float().view(clips, views, -1),
            present=None if scores.present is None else scores.present.view(clips, views),
        )

    def _run(self, frames: "Tensor | None", sound: Sound | None) -> Scores:
        pixels = None if frames is None or self.input is None else self._pixels(frames, self.input)
        if self.sound is None:
            assert pixels is not None
            return self.network(pixels)
        assert sound is not None
        views = self.num_views  # each sees other frames; all hear the same
        heard = (
            sound
            if views == 1
            else Sound(
                sound.samples.repeat_interleave(views, dim=0),
                sound.lengths.repeat_interleave(views, dim=0),
                sound.sample_rate,
            )
        )
        return self.network(pixels, heard)

    def _pixels(self, frames: "Tensor", spec: InputSpec) -> "Tensor":
        from vidcls_batch.models.preprocess import preprocess

        pixels = preprocess(frames.flatten(0, 1), spec, dtype=self.dtype)
        return pixels.view(len(frames) * self.num_views, spec.sampling.num_frames, *pixels.shape[1:])

    def _check_frames(self, frames: "Tensor | None") -> int:
        """The number of clips, 0 for a member that sees none."""
        import torch

        if self.input is None:
            if frames is not None:
                raise ValueError(f"{self.name} sees no frames; give it sound only")
            return 0
        slots = self.input.sampling.num_slots
        if (
            frames is None
            or frames.dtype != torch.uint8
            or frames.ndim != 5
            or frames.shape[1] != slots
            or frames.shape[-1] != 3
        ):
            given = "missing" if frames is None else f"{frames.dtype} {tuple(frames.shape)}"
            raise ValueError(f"{self.name}: frames are {given}, expected uint8 [clips, {slots}, height, width, 3]")
        return len(frames)

    def _check_sound(self, sound: Sound | None, clips: int) -> int:
        """The number of clips."""
        import torch

        assert self.sound is not None
        if sound is None:
            raise ValueError(f"{self.name} hears: it needs the clips' sound at {self.sound.sample_rate} Hz")
        if sound.sample_rate != self.sound.sample_rate:
            raise ValueError(
                f"{self.name}: the sound has {sound.sample_rate} samples a second, expected {self.sound.sample_rate}; "
                "at another rate all pitches are wrong"
            )
        samples, lengths = sound.samples, sound.lengths
        if samples.dtype != torch.float32 or samples.ndim != 2 or lengths.shape != samples.shape[:1]:
            raise ValueError(
                f"{self.name}: samples are {samples.dtype} {tuple(samples.shape)} with lengths {tuple(lengths.shape)}, "
                "expected float32 [clips, samples] and [clips]"
            )
        if samples.shape[1] > self.sound.num_samples:
            raise ValueError(
                f"{self.name}: {samples.shape[1]} samples for each clip, over the {self.sound.num_samples} it hears"
            )
        if self.input is not None and len(samples) != clips:
            raise ValueError(f"{self.name}: {clips} clips of frames and {len(samples)} of sound")
        return len(samples)
