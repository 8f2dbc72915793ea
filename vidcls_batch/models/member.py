"""A loaded member: uint8 frames in, logits per view out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import CheckpointRecord, InputSpec, Network, Scores

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def resolve_precision(precision: Precision, *, device: str) -> "torch.dtype":
    """The dtype a member computes in. `auto`: bf16 on CUDA, fp32 on the CPU, where bf16 ran five times slower."""
    import torch

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return named["bf16" if device.startswith("cuda") else "fp32"] if precision == "auto" else named[precision]


@dataclass(frozen=True, slots=True)
class LoadedMember:
    """A member on its device; see the protocol `Member`."""

    name: str
    input: InputSpec
    labels: tuple[str, ...]
    record: CheckpointRecord
    device: str
    dtype: "torch.dtype"
    network: Network

    def logits(self, frames: "Tensor") -> "Tensor":
        """Logits float32 [B, V, K] of frames uint8 [B, slots, H, W, 3]; raises ValueError on another shape or dtype."""
        return self.score(frames).logits

    def score(self, frames: "Tensor") -> Scores:
        """Logits float32 [B, V, K] and, where the family has them, embeddings, context and `present` [B, V, ...]."""
        import torch

        from vidcls_batch.models.preprocess import preprocess

        self._check(frames)
        clips, views, num_frames = len(frames), self.input.sampling.num_views, self.input.sampling.num_frames
        with torch.inference_mode():
            pixels = preprocess(frames.flatten(0, 1), self.input, dtype=self.dtype)
            scores = self.network(pixels.view(clips * views, num_frames, *pixels.shape[1:]))
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

    def _check(self, frames: "Tensor") -> None:
        import torch

        slots = self.input.sampling.num_slots
        if frames.dtype != torch.uint8 or frames.ndim != 5 or frames.shape[1] != slots or frames.shape[-1] != 3:
            raise ValueError(
                f"{self.name}: frames are {frames.dtype} {tuple(frames.shape)}, expected uint8 "
                f"[clips, {slots}, height, width, 3]"
            )
