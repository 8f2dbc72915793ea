"""From probabilities to one label with its confidence. Pure numpy; B clips, K labels, M members."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]  # probabilities over the run's labels, each row sums to 1
Mask = NDArray[np.bool_]
NONE_ID = -1  # label id of "none of these"
# Up to here k times the largest beats a sort of all labels (400 labels, k = 5: seven times).
_MOST_PASSES = 16


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best labels of B clips, [B, k] best first; k is at most K."""

    ids: NDArray[np.int64]
    scores: Scores


@dataclass(frozen=True, slots=True)
class Decision:
    """One label per clip and how sure it is; arrays of length B, `topk_*` [B, k] best first."""

    label_id: NDArray[np.int64]
    score: Scores  # probability of the label
    margin: Scores  # score minus the runner-up's; equals score when there is one label
    entropy: Scores  # of all K probabilities, in nats: 0 (certain) to ln K (no idea)
    topk_ids: NDArray[np.int64]
    topk_scores: Scores


def softmax(logits: NDArray[np.floating]) -> Scores:
    """Probabilities from logits over the last axis, in float64 for float64, else in float32; cannot overflow."""
    shifted = logits.astype(np.result_type(logits.dtype, np.float32), copy=False)
    exponentials = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    exponentials /= exponentials.sum(axis=-1, keepdims=True)
    return np.asarray(exponentials)


def weighted_mean(probabilities: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """Mean of M arrays [B, K] weighted by `weights` (scaled to sum 1). Raises ValueError on unusable weights."""
    if len(probabilities) != len(weights):
        raise ValueError(f"{len(probabilities)} members but {len(weights)} weights")
    total = float(sum(weights))
    if total <= 0 or min(weights) < 0:
        raise ValueError(f"weights must be >= 0 and sum to more than 0, got {list(weights)}")
    mean = np.zeros_like(probabilities[0])
    for scores, weight in zip(probabilities, weights, strict=True):
        mean += scores * (weight / total)
    return mean


def rank(scores: Scores, *, top_k: int, tie_break: Scores | None = None) -> Ranking:
    """The best labels from [B, K]; equal scores go to the higher `tie_break` [B, K], then to the lower label id."""
    top_k = min(top_k, scores.shape[1])
    if tie_break is not None:
        order = np.lexsort((-tie_break, -scores), axis=-1)[:, :top_k]
    elif top_k > _MOST_PASSES:
        # A stable sort of the negated scores keeps ties in id order, on every machine.
        order = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]
    else:
        order = _largest(scores, top_k)
    return Ranking(ids=order, scores=np.take_along_axis(scores, order, axis=-1))


def decide(probabilities: Scores, *, top_k: int, tie_break: Scores | None = None) -> Decision:
    """Best label per clip from [B, K]; equal scores go to the higher `tie_break`, then to the lower label id."""
    wanted = max(top_k, 2)
    best = rank(probabilities, top_k=wanted, tie_break=tie_break)
    second = best.scores[:, 1] if best.scores.shape[1] > 1 else np.zeros(len(probabilities), probabilities.dtype)
    return Decision(
        label_id=best.ids[:, 0],
        score=best.scores[:, 0],
        margin=best.scores[:, 0] - second,
        entropy=entropy(probabilities),
        topk_ids=best.ids[:, :top_k],
        topk_scores=best.scores[:, :top_k],
    )


def entropy(probabilities: Scores) -> Scores:
    """Of each row of [B, K], in nats."""
    # The floor keeps 0 log 0 at 0 without a mask.
    log = np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny))
    return np.asarray(np.maximum(-np.einsum("bk,bk->b", probabilities, log), 0))


def agreement(
    label_id: NDArray[np.int64], member_label_ids: Sequence[NDArray[np.int64]], weights: Sequence[float | Scores]
) -> Scores:
    """Share (0..1) of the members' weight that has the ensemble's label first; [B].

    A weight is a number, or one per clip [B] that is 0 where the member is missing.
    """
    total = np.sum([np.broadcast_to(weight, label_id.shape) for weight in weights], axis=0)
    votes = [weight * (ids == label_id) for ids, weight in zip(member_label_ids, weights, strict=True)]
    return np.asarray(np.sum(votes, axis=0) / np.where(total > 0, total, 1), dtype=np.float64)


def divergence(probabilities: Sequence[Scores], weights: Sequence[float | Scores]) -> Scores:
    """Jensen-Shannon divergence of M members [B, K], in nats: 0 (they say the same) to ln M; [B].

    H(mean) minus the mean of H, both weighted (Lin 1991). Weights as in `agreement`; one member alone gives 0.
    """
    clips = len(probabilities[0])
    shares = np.stack([np.broadcast_to(np.asarray(weight, dtype=np.float64), (clips,)) for weight in weights])
    total = shares.sum(axis=0)
    shares = shares / np.where(total > 0, total, 1)
    mean = np.zeros_like(probabilities[0])
    within = np.zeros(clips)
    for scores, share in zip(probabilities, shares, strict=True):
        mean += scores * share[:, None].astype(scores.dtype)
        within += share * np.where(share > 0, entropy(scores), 0)
    return np.asarray(np.maximum(entropy(mean) - within, 0), dtype=np.float64)


def _largest(scores: Scores, count: int) -> NDArray[np.int64]:
    """Ids of the `count` largest of each row, best first, ties to the lower id."""
    left = scores.copy()
    rows = np.arange(len(scores))
    ids = np.empty((len(scores), count), np.int64)
    for place in range(count):
        ids[:, place] = left.argmax(axis=1)  # the first of equals
        left[rows, ids[:, place]] = -np.inf
    return ids
