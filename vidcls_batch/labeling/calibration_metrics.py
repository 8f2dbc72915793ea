"""How far scores are from probabilities of being right. Pure numpy; N clips with known labels, K labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.labeling.ensemble import Scores

NUM_BINS = 15
_FLOOR = 1e-12


@dataclass(frozen=True, slots=True)
class Quality:
    """Of scores against the truth: accuracy higher, the others lower is better."""

    accuracy: float
    ece: float  # expected calibration error of the first label, NUM_BINS bins of equal width
    brier: float  # sum over labels of squared error, 0 to 2
    nll: float  # mean negative log likelihood, nats


@dataclass(frozen=True, slots=True)
class Bin:
    """Clips whose first label's score lies in [`low`, `high`)."""

    low: float
    high: float
    count: int
    mean_score: float
    accuracy: float


def quality(scores: Scores, truth: NDArray[np.integer]) -> Quality:
    """All measures of scores [N, K] against label ids [N]."""
    rows = np.arange(len(truth))
    scores = scores.astype(np.float64)
    hot = np.zeros_like(scores)
    hot[rows, truth] = 1
    bins = reliability(scores, truth)
    return Quality(
        accuracy=float(np.mean(scores.argmax(axis=1) == truth)),
        ece=sum(b.count * abs(b.accuracy - b.mean_score) for b in bins) / len(truth),
        brier=float(((scores - hot) ** 2).sum(axis=1).mean()),
        nll=float(-np.log(np.maximum(scores[rows, truth], _FLOOR)).mean()),
    )


def reliability(scores: Scores, truth: NDArray[np.integer], *, num_bins: int = NUM_BINS) -> list[Bin]:
    """Clips by their first label's score; empty bins have count 0."""
    best = scores.max(axis=1)
    right = scores.argmax(axis=1) == truth
    place = np.minimum((best * num_bins).astype(int), num_bins - 1)
    bins = []
    for number in range(num_bins):
        here = place == number
        count = int(here.sum())
        mean_score = float(best[here].mean()) if count else 0.0
        accuracy = float(right[here].mean()) if count else 0.0
        bins.append(Bin(number / num_bins, (number + 1) / num_bins, count, mean_score, accuracy))
    return bins
