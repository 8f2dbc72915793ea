"""From members' probabilities to one label with its confidence. Pure numpy; B clips, K labels, M members."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # probabilities over the run's labels, each row sums to 1


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
    """Probabilities from logits over the last axis, in float64; shift-invariant, so it does not overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), dtype=np.float64)


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


def decide(probabilities: Scores, *, top_k: int) -> Decision:
    """Best label per clip from [B, K]; equal scores go to the lower label id."""
    # A stable sort of the negated scores keeps ties in id order, on every machine.
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, : min(top_k, probabilities.shape[1])]
    ranked = np.take_along_axis(probabilities, order, axis=-1)
    second = _runner_up(probabilities, best=order[:, 0])
    log = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return Decision(
        label_id=order[:, 0],
        score=ranked[:, 0],
        margin=ranked[:, 0] - second,
        entropy=np.abs(-(probabilities * log).sum(axis=-1)),
        topk_ids=order,
        topk_scores=ranked,
    )


def agreement(
    label_id: NDArray[np.int64], member_label_ids: Sequence[NDArray[np.int64]], weights: Sequence[float]
) -> Scores:
    """Share (0..1) of the members' weight that has the ensemble's label first; [B]."""
    total = float(sum(weights))
    votes = [weight * (ids == label_id) for ids, weight in zip(member_label_ids, weights, strict=True)]
    return np.asarray(np.sum(votes, axis=0) / total, dtype=np.float64)


def _runner_up(probabilities: Scores, *, best: NDArray[np.int64]) -> Scores:
    if probabilities.shape[1] == 1:
        return np.zeros(len(probabilities))
    others = probabilities.copy()
    others[np.arange(len(others)), best] = -np.inf
    return np.asarray(others.max(axis=-1), dtype=np.float64)
