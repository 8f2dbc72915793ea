"""What a model is to the rest of the project: facts known before loading, and a loaded member that scores frames."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from vidcls_batch.config import SamplingConfig
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.types import Sampling, SoundWindow

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a member wants to see; known without its weights.

    Frames are resized so that the shorter side is `short_side` (`cover`), or to a square of it whatever their shape
    (`stretch`), centre-cropped to `height` x `width`, then `(pixel * scale + offset - mean) / std` per RGB channel.
    """

    sampling: Sampling
    short_side: int
    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1 / 255
    offset: float = 0.0
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    fit: Literal["cover", "stretch"] = "cover"


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """Where a member's weights came from, for the run's provenance."""

    checkpoint: str  # as asked for
    revision: str | None  # hub commit, or a digest of the folder's listing for a URI; None for a local folder
    weights_sha256: str
    licence: str | None  # SPDX-like, as the checkpoint's card says or its publisher is known for; None when unknown
    num_parameters: int


@dataclass(frozen=True, slots=True)
class MemberDescription:
    """A member before its weights are loaded."""

    name: str
    family: str
    input: InputSpec | None  # None: it sees no frames
    labels: tuple[str, ...]  # of the head in output order; of the run for a zero-shot family
    zero_shot: bool
    prompts: tuple[str, ...]  # templates; empty for a trained head
    embedding_dim: int | None  # None: the family gives no embedding
    checkpoint: str
    revision: str | None
    licence: str | None
    preprocessing_from: str  # the file the preprocessing was read from, or "family recipe"
    context_dim: int | None = None  # numbers that new label texts need beside the embedding
    sound: SoundWindow | None = None  # None: it hears nothing


@dataclass(frozen=True, slots=True)
class Sound:
    """What N clips sound like: mono float32 [N, S] in [-1, 1]; `lengths` int64 [N] are the samples of each clip, from
    the first on, zeros behind; 0: the clip has no sound, which is not the same as silence.
    """

    samples: "Tensor"
    lengths: "Tensor"
    sample_rate: int

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a network says of N clips: `logits` [N, K] and, where it has them, `embeddings` [N, D].

    `context` [N, C] is what scoring other label texts needs beside the embedding, in a family whose texts look at the
    video. `present` [N] is False for clips the network has nothing to say of, such as those without sound: their other
    numbers mean nothing, and the ensemble does without the member there.
    """

    logits: "Tensor"
    embeddings: "Tensor | None" = None
    context: "Tensor | None" = None
    present: "Tensor | None" = None


# Normalised pixels [N, T, 3, H, W] on the network's device, in its dtype -> Scores. In a family whose description has a
# `sound` it takes (pixels or None, Sound of the N clips).
Network = Callable[..., Scores]


class Member(Protocol):
    """A loaded model. Frames are uint8 [B, slots, H, W, 3] on the member's device, `slots` view after view
    (`input.sampling.num_slots`), H and W as the run decoded them; V is `input.sampling.num_views`, 1 without `input`;
    K is `len(labels)`. A member without `input` takes no frames; one with `sound` needs the clips' sound, of its rate.
    """

    name: str
    input: InputSpec | None
    sound: SoundWindow | None
    labels: tuple[str, ...]
    record: CheckpointRecord

    def logits(self, frames: "Tensor | None", sound: Sound | None = None) -> "Tensor":
        """Logits float32 [B, V, K], never probabilities. Raises ValueError on a wrong shape, dtype or rate."""
        ...

    def score(self, frames: "Tensor | None", sound: Sound | None = None) -> Scores:
        """Logits float32 [B, V, K] and embeddings float32 [B, V, D] from one forward pass."""
        ...


@dataclass(frozen=True, slots=True)
class FamilyDescription:
    """What a family reads from a checkpoint's small files."""

    input: InputSpec | None
    preprocessing_from: str
    zero_shot: bool  # scores any label set
    num_outputs: int | None  # of a trained head; None for zero-shot, or when only the weights tell
    labels: tuple[str, ...] | None  # names of the outputs where the checkpoint has them
    embedding_dim: int | None
    context_dim: int | None = None
    licence: str | None = None  # where the checkpoint itself says
    sound: SoundWindow | None = None


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network on its device, and what only its weights tell."""

    network: Network
    num_parameters: int
    num_outputs: int | None = None  # where only the weights tell
    dtype: "torch.dtype | None" = None  # what it computes in, where it had no choice
    module: "torch.nn.Module | None" = None  # of its weights, where torch runs it as it is


class Family(Protocol):
    """One implementation of a model family; a family's module offers one as `FAMILY`."""

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """Read the small files only. Raises CheckpointError, or ConfigError for a sampling that cannot be."""
        ...

    def load(
        self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...], device: str, dtype: "torch.dtype"
    ) -> LoadedNetwork:
        """Load the weights. `texts[k]` are the prompts of label k; empty for a trained head. Raises CheckpointError."""
        ...


# Scores stored embeddings float32 [N, D], with their context [N, C] where the family has one, against label texts:
# logits float32 [N, K], as the network that made them would.
TextScorer = Callable[["Tensor", "Tensor | None"], "Tensor"]


class TextFamily(Family, Protocol):
    """A family that scores label texts: it can do so again from what it said of a clip, without the clip."""

    def embed_label_texts(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> "Tensor":
        """One embedding float32 [K, D] for the texts of each label, by the text encoder. Raises CheckpointError."""
        ...

    def load_text_scorer(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> TextScorer:
        """Load what scores `texts` (prompts of each label) on the CPU. Raises CheckpointError."""
        ...


ViewRule = Literal["mean_of_probabilities", "mean_of_logits"]


def combine_views(logits: "Tensor", rule: ViewRule = "mean_of_probabilities") -> "Tensor":
    """Logits [B, V, K] to [B, K]; the softmax of the result is the clip's probabilities under either rule.

    `mean_of_probabilities` is what the published multi-view accuracies average. One view comes back unchanged.
    """
    import torch

    if logits.ndim != 3:
        raise ValueError(f"logits have shape {tuple(logits.shape)}, expected [clips, views, labels]")
    views = logits.shape[1]
    if views == 1:
        return logits[:, 0]
    if rule == "mean_of_logits":
        return logits.mean(dim=1)
    # log of the mean softmax, without leaving the log domain: no probability underflows to 0.
    return torch.logsumexp(logits.log_softmax(dim=-1), dim=1) - torch.log(torch.tensor(float(views)))
