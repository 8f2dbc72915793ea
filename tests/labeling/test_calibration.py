import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcls_batch.errors import ConfigError
from vidcls_batch.labeling.calibration import EmbeddingCache, Isotonic, LinearProbe, Temperature, VectorScaling
from vidcls_batch.labeling.calibration_file import CalibrationFile, load_calibration, save_calibration
from vidcls_batch.labeling.calibration_fit import (
    fit_cache,
    fit_isotonic,
    fit_prior,
    fit_probe,
    fit_stacking,
    fit_temperature,
    fit_vector,
    rising_line,
    stratified_folds,
)
from vidcls_batch.labeling.calibration_metrics import quality, reliability
from vidcls_batch.labeling.ensemble import softmax
from vidcls_batch.labeling.rules import Stacking, make_panel, stack

seeds = st.integers(0, 2**32 - 1)


def draw(seed: int, *, clips: int = 400, labels: int = 4, boost: float = 1.5):
    """Logits whose softmax is the very probability of the label, and labels drawn from it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(clips, labels)) * boost
    p = softmax(logits)
    truth = (p.cumsum(axis=1) > rng.random((clips, 1))).argmax(axis=1)
    return logits, truth


@settings(max_examples=20)
@given(seeds)
def test_measures_equal_scikit_learn_and_a_plain_loop(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    logits, truth = draw(seed, clips=60)
    scores = softmax(logits)
    found = quality(scores, truth)
    assert found.nll == pytest.approx(metrics.log_loss(truth, scores, labels=range(4)))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, scores.argmax(axis=1)))
    hot = np.eye(4)[truth]
    assert found.brier == pytest.approx(sum(metrics.brier_score_loss(hot[:, k], scores[:, k]) for k in range(4)))
    error = 0.0
    for low in range(15):
        rows = [i for i, row in enumerate(scores) if low / 15 <= row.max() < (low + 1) / 15]
        if rows:
            hits = np.mean([scores[i].argmax() == truth[i] for i in rows])
            error += len(rows) / len(scores) * abs(hits - np.mean([scores[i].max() for i in rows]))
    assert found.ece == pytest.approx(error)
    assert sum(b.count for b in reliability(scores, truth)) == len(truth)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_that_was_put_in_comes_out(temperature):
    logits, truth = draw(1, clips=20_000)
    found = fit_temperature(softmax(logits * temperature), truth)
    assert found.temperature == pytest.approx(temperature, rel=0.06)


def test_temperature_keeps_every_label_and_makes_over_confident_scores_honest():
    logits, truth = draw(2, clips=4000)
    before = softmax(logits * 3)
    after = fit_temperature(before, truth).apply(before, embedding=None)
    assert (after.argmax(axis=1) == before.argmax(axis=1)).all()
    assert quality(before, truth).ece > 0.1
    assert quality(after, truth).ece < 0.02


def test_vector_scaling_mends_what_temperature_cannot():
    logits, truth = draw(3, clips=8000)
    before = softmax(logits + np.array([2.0, 0, 0, -2.0]))
    by_vector = fit_vector(before, truth).apply(before, embedding=None)
    by_temperature = fit_temperature(before, truth).apply(before, embedding=None)
    assert quality(by_vector, truth).nll < quality(by_temperature, truth).nll - 0.1
    assert quality(fit_prior(before, truth).apply(before, embedding=None), truth).nll < quality(before, truth).nll - 0.1


@settings(max_examples=20)
@given(seeds)
def test_rising_line_equals_scikit_learn(seed):
    isotonic = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(50), 1)
    hits = rng.random(50) < scores
    points, shares = rising_line(scores, hits)
    expected = isotonic.IsotonicRegression(out_of_bounds="clip").fit(scores, hits)
    asked = np.linspace(0, 1, 30)
    assert np.interp(asked, points, shares) == pytest.approx(expected.predict(asked))


def test_isotonic_mends_a_bent_score():
    logits, truth = draw(4, clips=8000)
    before = softmax(logits) ** 0.3
    before /= before.sum(axis=1, keepdims=True)
    after = fit_isotonic(before, truth).apply(before, embedding=None)
    assert quality(after, truth).ece < quality(before, truth).ece / 3
    assert np.allclose(after.sum(axis=1), 1)


@settings(max_examples=5, deadline=None)
@given(seeds)
def test_probe_equals_scikit_learns_logistic_regression(seed):
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(seed)
    truth = np.arange(60) % 3
    vectors = rng.normal(size=(60, 5)) + 2 * np.eye(3, 5)[truth]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.full((60, 3), 1 / 3)
    found = fit_probe(vectors, truth, num_labels=3, penalty=0.5).apply(scores, embedding=vectors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = linear.LogisticRegression(C=2.0, tol=1e-8, max_iter=5000).fit(vectors, truth)
    assert found == pytest.approx(expected.predict_proba(vectors), abs=2e-3)


def test_cache_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(6, 3))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    cache = EmbeddingCache(keys=keys, label_ids=np.array([0, 1, 2, 0, 1, 2]), strength=2.0, sharpness=5.0)
    scores, seen = softmax(rng.normal(size=(4, 3))), rng.normal(size=(4, 3))
    found = cache.apply(scores, embedding=seen)
    for b in range(4):
        logits = np.log(scores[b])
        for key, label in zip(keys, cache.label_ids, strict=True):
            logits[label] += 2.0 * np.exp(-5.0 * (1 - key @ seen[b] / np.linalg.norm(seen[b])))
        assert found[b] == pytest.approx(np.exp(logits) / np.exp(logits).sum())


def test_cache_and_probe_learn_what_the_texts_did_not_say():
    rng = np.random.default_rng(5)
    truth = np.arange(120) % 3
    seen = rng.normal(size=(120, 8)) * 0.3 + 2 * np.eye(3, 8)[truth]
    blind = softmax(rng.normal(size=(120, 3)))
    train, test = np.arange(120) < 60, np.arange(120) >= 60
    cache = fit_cache(blind[train], seen[train], truth[train])
    probe = fit_probe(seen[train], truth[train], num_labels=3)
    for calibrator in (cache, probe):
        after = calibrator.apply(blind[test], embedding=seen[test])
        assert quality(after, truth[test]).accuracy > 0.9


def test_stacking_trusts_the_member_that_knows_a_label():
    """One member tells 0 from the rest, the other tells 2 from the rest."""
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 3, 3000)
    hears, looks = rng.normal(size=(2, 3000, 3)) * 0.5
    hears[truth == 0, 0] += 4
    looks[truth == 2, 2] += 4
    scores = [softmax(hears), softmax(looks)]
    learned = fit_stacking(scores, truth)
    assert learned.exponents[0, 0] > 1.5 * learned.exponents[1, 0]
    assert learned.exponents[1, 2] > 1.5 * learned.exponents[0, 2]
    panel = make_panel(scores, weights=[1.0, 1.0], present=[None] * 2, covers=[None] * 2)
    pooled = stack(panel, learned).scores
    mean = (scores[0] + scores[1]) / 2
    assert quality(pooled, truth).nll < quality(mean, truth).nll - 0.1


@settings(max_examples=5, deadline=None)
@given(seeds)
def test_stacking_of_one_member_and_two_labels_is_logistic_regression(seed):
    linear = pytest.importorskip("sklearn.linear_model")
    logits, truth = draw(seed, clips=500, labels=2)
    scores = softmax(logits * 2)
    learned = fit_stacking([scores], truth, penalty=1e-6)
    panel = make_panel([scores], weights=[1.0], present=[None], covers=[None])
    odds = np.log(scores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = linear.LogisticRegression(C=1e6, tol=1e-8, max_iter=5000).fit(odds, truth).predict_proba(odds)
    assert stack(panel, learned).scores == pytest.approx(expected, abs=5e-3)


def test_labels_of_score_zero_stay_there():
    scores = np.array([[0.7, 0.3, 0.0]], np.float32)
    for calibrator in (
        Temperature(3.0),
        VectorScaling(np.ones(3), np.array([0.0, 0, 9])),
        Isotonic((np.array([0.0, 1]),) * 3, (np.array([0.2, 1]),) * 3),
        EmbeddingCache(np.eye(1, 2), np.array([2]), 5.0, 1.0),
    ):
        found = calibrator.apply(scores, embedding=np.array([[1.0, 0.0]]))
        assert found[0, 2] == 0
        assert found.sum() == pytest.approx(1)


def test_folds_hold_out_each_label_evenly():
    truth = np.repeat([0, 1, 2], [50, 10, 5])
    place = stratified_folds(truth, folds=5)
    assert np.bincount(place).tolist() == [13] * 5
    assert [np.bincount(place[truth == k], minlength=5).tolist() for k in (1, 2)] == [[2] * 5, [1] * 5]


def test_file_gives_back_what_was_saved(tmp_path):
    saved = CalibrationFile(
        members={
            "a": Temperature(1.5),
            "b": VectorScaling(np.array([1.0, 2.0]), np.array([0.0, -1.0])),
            "c": Isotonic((np.array([0.1, 0.9]), np.array([0.5])), (np.array([0.0, 1.0]), np.array([0.4]))),
            "d": EmbeddingCache(np.eye(2, 3, dtype=np.float32), np.array([0, 1], np.int32), 2.0, 5.5),
            "e": LinearProbe(np.ones((3, 2)), np.zeros(2)),
        },
        ensemble=Temperature(0.9),
        stacking=Stacking(np.ones((5, 2)), np.zeros(2)),
        stacked_members=tuple("abcde"),
        provenance={"label_set_digest": "x", "rule": "stacking"},
        incomplete=Temperature(1.7),
    )
    save_calibration(tmp_path / "c.json", saved)
    found = load_calibration(tmp_path / "c.json")
    scores, seen = np.array([[0.25, 0.75], [0.6, 0.4]]), np.array([[1.0, 2, 3], [3, 2, 1]])
    for name, calibrator in saved.members.items():
        after = found.members[name].apply(scores, embedding=seen)
        assert np.array_equal(after, calibrator.apply(scores, embedding=seen))
    assert found.embeds == {"d", "e"}
    used = found.for_members(list("abcde"), label_set_digest="x", source="c.json", rule="stacking")
    assert np.array_equal(used.stacking.exponents, np.ones((5, 2)))
    assert used.incomplete == Temperature(1.7)


@pytest.mark.parametrize(
    ("rule", "digest", "names", "message"),
    [
        ("weighted_mean", "x", "ab", "learned with ensemble.rule stacking, the run has weighted_mean"),
        ("stacking", "y", "ab", "learned for another label set"),
        ("stacking", "x", "ba", "learned for the members"),
    ],
)
def test_file_is_refused_where_it_does_not_fit(tmp_path, rule, digest, names, message):
    saved = CalibrationFile(
        {"a": VectorScaling(np.ones(2), np.zeros(2))},
        Temperature(1.0),
        Stacking(np.ones((2, 2)), np.zeros(2)),
        ("a", "b"),
        {"label_set_digest": "x", "rule": "stacking"},
    )
    save_calibration(tmp_path / "c.json", saved)
    with pytest.raises(ConfigError, match=message):
        load_calibration(tmp_path / "c.json").for_members(
            list(names), label_set_digest=digest, source="c.json", rule=rule
        )


@pytest.mark.parametrize("text", ["", "{}", '{"version": 9}', '{"version": 1, "stacking": null, "members": {"a": {}}}'])
def test_file_that_is_no_calibration_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.json"):
        load_calibration(tmp_path / "c.json")
