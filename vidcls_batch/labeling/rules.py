"""How members' probabilities become one: a table of rules, each a pure function of a panel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vidcls_batch.labeling.ensemble import Mask, Scores, softmax

# A member may speak against a label, not veto it: below this its probability counts as this.
FLOOR = 1e-12
# Of reciprocal rank fusion (Cormack et al. 2009): with 60, a first and a tenth place differ by a fifth.
RANK_OFFSET = 60


@dataclass(frozen=True, slots=True)
class Panel:
    """What M members say of B clips over the run's K labels.

    `probabilities[m]` is [B, K], 0 at labels that member m does not know. `weights[m]` broadcasts to [B, K]: its
    weight, 0 where the clip has no score of it and at labels it does not know. So a label is judged by those who know
    it, and a clip by those who scored it.
    """

    probabilities: tuple[Scores, ...]
    weights: tuple[Scores, ...]


@dataclass(frozen=True, slots=True)
class Stacking:
    """A learned pool: `exponents` [M, K] of the members' probabilities, and a `bias` [K]."""

    exponents: Scores
    bias: Scores


@dataclass(frozen=True, slots=True)
class Pooled:
    """Probabilities [B, K] of the ensemble; `tie_break` [B, K] orders labels whose scores are equal."""

    scores: Scores
    tie_break: Scores | None = None


def make_panel(
    probabilities: Sequence[Scores],
    *,
    weights: Sequence[float | Scores],
    present: Sequence[Mask | None],
    covers: Sequence[Mask | None],
) -> Panel:
    """A panel from M arrays [B, K], a weight (or one per label [K]) each, and masks; None in a mask means all.

    `present[m]` [B] tells which clips member m scored, `covers[m]` [K] which labels it knows.
    """
    effective = []
    for scores, weight, here, knows in zip(probabilities, weights, present, covers, strict=True):
        of_label = np.atleast_1d(np.asarray(weight, dtype=scores.dtype))[None, :]  # [1, 1] or [1, K]
        if knows is not None and not knows.all():
            of_label = of_label * knows[None, :]
        effective.append(of_label if here is None or here.all() else of_label * here[:, None])
    return Panel(tuple(probabilities), tuple(effective))


def weighted_mean(panel: Panel) -> Pooled:
    """Linear opinion pool: per label the mean of those who know it, then scaled to sum 1."""
    return Pooled(_scaled_to_one(_mean(panel.probabilities, panel.weights)))


def log_pool(panel: Panel) -> Pooled:
    """Logarithmic opinion pool: the geometric mean of those who know a label, scaled to sum 1."""
    logs = [_log(p) for p in panel.probabilities]
    return Pooled(_softmax_of_known(_mean(logs, panel.weights), panel.weights))


def logit_mean(panel: Panel) -> Pooled:
    """Mean of logits, each member's counted from its mean over the labels it knows.

    The same as `log_pool` where all members know all labels; where one knows few, its scores do not count as high just
    because they share out among few.
    """
    centred = []
    for scores, weights in zip(panel.probabilities, panel.weights, strict=True):
        logs = _log(scores)
        knows = np.broadcast_to((weights != 0).any(axis=0), logs.shape[1:])
        centred.append(logs - logs[:, knows].mean(axis=1, keepdims=True) if knows.any() else logs)
    return Pooled(_softmax_of_known(_mean(centred, panel.weights), panel.weights))


def weighted_vote(panel: Panel) -> Pooled:
    """Each member gives its weight to its first label; equal votes go to the higher mean probability."""
    votes = np.zeros_like(panel.probabilities[0])
    rows = np.arange(len(votes))
    for scores, weights in zip(panel.probabilities, panel.weights, strict=True):
        first = scores.argmax(axis=1)
        votes[rows, first] += np.broadcast_to(weights, scores.shape)[rows, first]
    return Pooled(_scaled_to_one(votes), tie_break=weighted_mean(panel).scores)


def majority(panel: Panel) -> Pooled:
    """One vote per member whatever its weight, but 0; equal votes go to the higher mean probability."""
    ones = tuple((w > 0).astype(p.dtype) for w, p in zip(panel.weights, panel.probabilities, strict=True))
    return Pooled(weighted_vote(Panel(panel.probabilities, ones)).scores, tie_break=weighted_mean(panel).scores)


def rank_fusion(panel: Panel) -> Pooled:
    """Reciprocal rank fusion: the sum of weight / (60 + place), scaled to sum 1; its scores are nearly flat."""
    fused = np.zeros_like(panel.probabilities[0])
    for scores, weights in zip(panel.probabilities, panel.weights, strict=True):
        order = np.argsort(-scores, axis=1, kind="stable")
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(1, scores.shape[1] + 1)[None, :], axis=1)
        fused += weights / (RANK_OFFSET + place).astype(scores.dtype)
    return Pooled(_scaled_to_one(fused))


Rule = Callable[[Panel], Pooled]

RULES: Mapping[str, Rule] = {
    "weighted_mean": weighted_mean,
    "log_pool": log_pool,
    "logit_mean": logit_mean,
    "majority": majority,
    "weighted_vote": weighted_vote,
    "rank_fusion": rank_fusion,
}
"""Rules that need one clip and no more; `stacking` has what it learned in a calibration file besides."""


def stack(panel: Panel, learned: Stacking) -> Pooled:
    """The learned pool: softmax of `bias` + sum of exponent x log probability.

    Where a member is missing the others' exponents grow, so that their sum per label stays what was learned.
    """
    total = np.zeros_like(panel.probabilities[0])
    seen = np.zeros((1, 1), total.dtype)
    exponents = learned.exponents.astype(total.dtype)
    for scores, weights, exponent in zip(panel.probabilities, panel.weights, exponents, strict=True):
        counts = exponent[None, :] * (weights > 0)
        total += counts * _log(scores)
        seen = seen + counts
    growth = _ratio(np.broadcast_to(exponents.sum(axis=0)[None, :], seen.shape), seen)
    logits = total * growth + learned.bias[None, :].astype(total.dtype)
    return Pooled(_softmax_of_known(logits, panel.weights))


def _mean(values: Sequence[Scores], weights: Sequence[Scores]) -> Scores:
    """Weighted mean over members, per clip and label; 0 where no one has weight."""
    total = np.zeros_like(values[0])
    seen = np.zeros((1, 1), total.dtype)
    for value, weight in zip(values, weights, strict=True):
        total += weight * value
        seen = seen + weight
    return np.asarray(total * _ratio(np.ones_like(seen), seen))


def _ratio(above: Scores, below: Scores) -> Scores:
    return np.asarray(np.divide(above, below, out=np.zeros_like(below), where=below > 0))


def _log(scores: Scores) -> Scores:
    return np.asarray(np.log(np.maximum(scores, scores.dtype.type(FLOOR))))


def _scaled_to_one(scores: Scores) -> Scores:
    """Each row divided by its sum; a row of zeros stays one."""
    return np.asarray(scores * _ratio(np.ones((len(scores), 1), scores.dtype), scores.sum(axis=1, keepdims=True)))


def _softmax_of_known(logits: Scores, weights: Sequence[Scores]) -> Scores:
    """Softmax over labels that some member with weight knows; the others get 0, as does a row without any."""
    known = weights[0] > 0
    for weight in weights[1:]:
        known = known | (weight > 0)
    if known.all():
        return softmax(logits)
    lowest = np.finfo(logits.dtype).min
    return softmax(np.where(known, logits, lowest)) * known
