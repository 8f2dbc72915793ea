"""Learning calibrators from clips with known labels: N clips, K labels, truth as label ids [N]."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.labeling.calibration import (
    EmbeddingCache,
    Isotonic,
    LinearProbe,
    Temperature,
    VectorScaling,
    unit,
)
from vidcls_batch.labeling.ensemble import Scores, softmax
from vidcls_batch.labeling.rules import FLOOR, Stacking

Floats = NDArray[np.float64]
Truth = NDArray[np.integer]
# Penalties count once, the likelihood once per clip: with more clips they matter less.
PENALTY = 1.0
_STRENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_SHARPNESSES = (1.0, 3.0, 5.5, 10.0, 20.0)


def fit_temperature(scores: Scores, truth: Truth, *, penalty: float = PENALTY) -> Temperature:
    """The temperature, 1/50 to 50, under which the truth is most likely.

    `penalty` x the squared log temperature holds it near 1: a few clips that are all right would ask for scores of 1.
    """
    from scipy.optimize import minimize_scalar

    logs = _log(scores)

    def loss(log_temperature: float) -> float:
        return _nll(logs / np.exp(log_temperature), truth) + penalty * log_temperature**2 / len(truth)

    found = minimize_scalar(loss, bounds=(-np.log(50), np.log(50)), method="bounded", options={"xatol": 1e-6})
    return Temperature(float(np.exp(found.x)))


def fit_vector(scores: Scores, truth: Truth, *, penalty: float = PENALTY) -> VectorScaling:
    """A scale and a bias per label; `penalty` x the squared distance from 1 and 0 holds them where clips are few."""
    logs = _log(scores)
    labels = logs.shape[1]

    def loss(values: Floats) -> tuple[float, Floats]:
        scale, bias = values[:labels], values[labels:]
        nll, grad = _nll_and_gradient(logs * scale + bias, truth)
        held = penalty * (((scale - 1) ** 2).sum() + (bias**2).sum()) / len(truth)
        slope = 2 * penalty * np.concatenate([scale - 1, bias]) / len(truth)
        return nll + held, np.concatenate([(grad * logs).sum(axis=0), grad.sum(axis=0)]) + slope

    found = _minimize(loss, np.concatenate([np.ones(labels), np.zeros(labels)]))
    return VectorScaling(scale=found[:labels], bias=found[labels:])


def fit_prior(scores: Scores, truth: Truth, *, penalty: float = PENALTY) -> VectorScaling:
    """A bias per label only: what a zero-shot member says too often counts for less."""
    logs = _log(scores)

    def loss(bias: Floats) -> tuple[float, Floats]:
        nll, grad = _nll_and_gradient(logs + bias, truth)
        return nll + penalty * (bias**2).sum() / len(truth), grad.sum(axis=0) + 2 * penalty * bias / len(truth)

    return VectorScaling(scale=np.ones(logs.shape[1]), bias=_minimize(loss, np.zeros(logs.shape[1])))


def fit_isotonic(scores: Scores, truth: Truth) -> Isotonic:
    """One rising line per label, each label against all others."""
    lines = [rising_line(scores[:, label], truth == label) for label in range(scores.shape[1])]
    return Isotonic(scores=tuple(line[0] for line in lines), shares=tuple(line[1] for line in lines))


def rising_line(scores: NDArray[np.floating], hits: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Isotonic regression of hits on scores: the points of the line, scores rising."""
    from scipy.optimize import isotonic_regression

    points, place, counts = np.unique(scores.astype(np.float64), return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=hits.astype(np.float64)) / counts
    return points, np.asarray(isotonic_regression(means, weights=counts.astype(np.float64)).x)


def fit_probe(
    embeddings: NDArray[np.floating], truth: Truth, *, num_labels: int, penalty: float = PENALTY
) -> LinearProbe:
    """Multinomial logistic regression on unit embeddings [N, D]; `penalty` is scikit-learn's 1/C."""
    keys = unit(embeddings.astype(np.float64))
    width = keys.shape[1]

    def loss(values: Floats) -> tuple[float, Floats]:
        weights, bias = values[: width * num_labels].reshape(width, num_labels), values[width * num_labels :]
        nll, grad = _nll_and_gradient(keys @ weights + bias, truth)
        held = penalty * (weights**2).sum() / 2 / len(truth)
        slope = keys.T @ grad + penalty * weights / len(truth)
        return nll + held, np.concatenate([slope.ravel(), grad.sum(axis=0)])

    found = _minimize(loss, np.zeros((width + 1) * num_labels))
    return LinearProbe(weights=found[: width * num_labels].reshape(width, num_labels), bias=found[width * num_labels :])


def fit_cache(scores: Scores, embeddings: NDArray[np.floating], truth: Truth) -> EmbeddingCache:
    """Tip-Adapter without training; strength and sharpness by leaving each known clip out of its own cache."""
    keys = unit(embeddings.astype(np.float64))
    logs = _log(scores)
    cosine = keys @ keys.T
    hot = np.zeros(logs.shape)
    hot[np.arange(len(truth)), truth] = 1

    def loss(strength: float, sharpness: float) -> float:
        affinity = np.exp(sharpness * (cosine - 1))
        np.fill_diagonal(affinity, 0)
        return _nll(logs + strength * affinity @ hot, truth)

    strength, sharpness = min(((a, b) for a in _STRENGTHS for b in _SHARPNESSES), key=lambda pair: loss(*pair))
    return EmbeddingCache(
        keys=keys.astype(np.float32), label_ids=truth.astype(np.int32), strength=strength, sharpness=sharpness
    )


def fit_stacking(scores: Sequence[Scores], truth: Truth, *, penalty: float = PENALTY) -> Stacking:
    """Exponents >= 0 per member and label, and a bias per label, for M members' scores [N, K].

    A member's exponents are held near their mean over labels, biases near 0: with few clips it learns a weight per
    member, with more of them a weight per member and label ("guitar" listens, "swimming" looks).
    """
    from scipy.optimize import minimize

    logs = np.stack([np.log(np.maximum(s.astype(np.float64), FLOOR)) for s in scores])
    members, clips, labels = logs.shape

    def loss(values: Floats) -> tuple[float, Floats]:
        exponents, bias = values[: members * labels].reshape(members, labels), values[members * labels :]
        nll, grad = _nll_and_gradient(np.einsum("mk,mnk->nk", exponents, logs) + bias, truth)
        apart = exponents - exponents.mean(axis=1, keepdims=True)
        held = penalty * ((apart**2).sum() + (bias**2).sum()) / clips
        slope = np.einsum("nk,mnk->mk", grad, logs) + 2 * penalty * apart / clips
        return nll + held, np.concatenate([slope.ravel(), grad.sum(axis=0) + 2 * penalty * bias / clips])

    start = np.concatenate([np.full(members * labels, 1 / members), np.zeros(labels)])
    bounds = [(0.0, None)] * (members * labels) + [(None, None)] * labels
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}).x
    return Stacking(exponents=found[: members * labels].reshape(members, labels), bias=found[members * labels :])


def stratified_folds(truth: Truth, *, folds: int, seed: int = 0) -> NDArray[np.int64]:
    """A fold number for each clip; each label's clips are dealt out evenly."""
    rng = np.random.default_rng(seed)
    found = np.empty(len(truth), np.int64)
    dealt = 0
    for label in np.unique(truth):
        places = rng.permutation(np.flatnonzero(truth == label))
        found[places] = (dealt + np.arange(len(places))) % folds
        dealt += len(places)
    return found


def _log(scores: Scores) -> Floats:
    # As `calibration` does when it applies: the smallest number of the scores' own precision.
    return np.asarray(np.log(np.maximum(scores, np.finfo(scores.dtype).tiny)), dtype=np.float64)


def _nll(logits: Floats, truth: Truth) -> float:
    return _nll_and_gradient(logits, truth)[0]


def _nll_and_gradient(logits: Floats, truth: Truth) -> tuple[float, Floats]:
    """Mean negative log likelihood and its gradient by the logits."""
    probabilities = np.asarray(softmax(logits), dtype=np.float64)
    rows = np.arange(len(truth))
    gradient = probabilities.copy()
    gradient[rows, truth] -= 1
    shifted = logits - logits.max(axis=1, keepdims=True)
    likelihood = shifted[rows, truth] - np.log(np.exp(shifted).sum(axis=1))
    return float(-likelihood.mean()), gradient / len(truth)


def _minimize(loss: Callable[[Floats], tuple[float, Floats]], start: Floats) -> Floats:
    from scipy.optimize import minimize

    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x)
