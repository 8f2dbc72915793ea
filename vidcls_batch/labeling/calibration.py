"""Scores that are probabilities of being right: the ways to get them, and how they are applied. Pure numpy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.labeling.ensemble import Scores, softmax
from vidcls_batch.labeling.rules import Stacking


class Calibrator(Protocol):
    """Better probabilities [B, K] from a member's or the ensemble's, each row summing to 1 before and after."""

    def apply(self, scores: Scores, *, embedding: NDArray[np.floating] | None) -> Scores:
        """`embedding` [B, D] is the member's, for those that look at it. Labels of score 0 keep it."""
        ...


@dataclass(frozen=True)
class Temperature:
    """Logits divided by one number (Guo et al. 2017, arXiv:1706.04599): the label stays, its score changes."""

    temperature: float

    def apply(self, scores: Scores, *, embedding: NDArray[np.floating] | None) -> Scores:
        """Softmax of log score / temperature."""
        return _softmax_of(_log(scores) / scores.dtype.type(self.temperature), scores)


@dataclass(frozen=True)
class VectorScaling:
    """Logits scaled and shifted per label; with all scales 1, a correction of the labels' prior."""

    scale: NDArray[np.floating]  # [K]
    bias: NDArray[np.floating]  # [K]

    def apply(self, scores: Scores, *, embedding: NDArray[np.floating] | None) -> Scores:
        """Softmax of scale x log score + bias."""
        logits = _log(scores) * self.scale.astype(scores.dtype) + self.bias.astype(scores.dtype)
        return _softmax_of(logits, scores)


@dataclass(frozen=True)
class Isotonic:
    """Each label's score through a rising step line of its own, then scaled to sum 1 (Zadrozny & Elkan 2002).

    `scores[k]` and `shares[k]` are the line's points: the share of clips that were k among those with that score.
    """

    scores: tuple[NDArray[np.floating], ...]
    shares: tuple[NDArray[np.floating], ...]

    def apply(self, scores: Scores, *, embedding: NDArray[np.floating] | None) -> Scores:
        """Interpolate per label; a clip for which every line says 0 keeps its scores."""
        mapped = np.empty_like(scores)
        for label, (points, values) in enumerate(zip(self.scores, self.shares, strict=True)):
            mapped[:, label] = np.interp(scores[:, label], points, values)
        mapped *= scores > 0
        total = mapped.sum(axis=1, keepdims=True)
        return np.where(total > 0, mapped / np.where(total > 0, total, 1), scores)


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier on unit embeddings, in place of the member's own scores."""

    weights: NDArray[np.floating]  # [D, K]
    bias: NDArray[np.floating]  # [K]

    def apply(self, scores: Scores, *, embedding: NDArray[np.floating] | None) -> Scores:
        """Softmax of embedding x weights + bias."""
        logits = unit(_required(embedding)).astype(scores.dtype) @ self.weights.astype(scores.dtype)
        return softmax(logits + self.bias.astype(scores.dtype))


@dataclass(frozen=True)
class EmbeddingCache:
    """Tip-Adapter (Zhang et al. 2022, arXiv:2207.09519): the labels of similar known clips add to the logits."""

    keys: NDArray[np.floating]  # [N, D], unit embeddings of the known clips
    label_ids: NDArray[np.integer]  # [N]
    strength: float
    sharpness: float

    def apply(self, scores: Scores, *, embedding: NDArray[np.floating] | None) -> Scores:
        """Softmax of log score + strength x the sum over known clips of exp(-sharpness x (1 - cosine))."""
        cosine = unit(_required(embedding)).astype(scores.dtype) @ self.keys.T.astype(scores.dtype)
        affinity = np.exp(scores.dtype.type(self.sharpness) * (cosine - 1))
        labels = np.zeros((len(self.keys), scores.shape[1]), scores.dtype)
        labels[np.arange(len(self.keys)), self.label_ids] = 1
        return _softmax_of(_log(scores) + scores.dtype.type(self.strength) * (affinity @ labels), scores)


METHODS: Mapping[str, type[Calibrator]] = {
    "temperature": Temperature,
    "vector": VectorScaling,
    "isotonic": Isotonic,
    "probe": LinearProbe,
    "cache": EmbeddingCache,
}
"""Names of the calibrators in a calibration file."""


@dataclass(frozen=True)
class Calibration:
    """Of a run: `members[m]` for its m-th member, then the ensemble; None leaves scores as they are.

    `incomplete` takes the ensemble's place for clips that some member has no score of (no sound): what is left is as
    sure of them as ever, and less often right.
    """

    members: tuple[Calibrator | None, ...]
    ensemble: Calibrator | None = None
    stacking: Stacking | None = field(default=None)
    incomplete: Calibrator | None = None


def calibrated(
    scores: Scores, calibrator: Calibrator | None, *, embedding: NDArray[np.floating] | None = None
) -> Scores:
    """Scores [B, K] through a calibrator, None for as they are."""
    return scores if calibrator is None else calibrator.apply(scores, embedding=embedding)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows scaled to length 1; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1))


def _required(embedding: NDArray[np.floating] | None) -> NDArray[np.floating]:
    if embedding is None:
        raise ValueError("this calibration looks at embeddings, and the member has none")
    return embedding


def _log(scores: Scores) -> Scores:
    return np.asarray(np.log(np.maximum(scores, np.finfo(scores.dtype).tiny)))


def _softmax_of(logits: Scores, scores: Scores) -> Scores:
    """Softmax over the labels whose score is not 0."""
    known = scores > 0
    return softmax(logits) if known.all() else softmax(np.where(known, logits, np.finfo(logits.dtype).min)) * known
