"""Calibrations of whole ensembles: figures on clips that nothing was learned from."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcls_batch.labeling.calibration import Calibration
from vidcls_batch.labeling.calibration_fit import fit_stacking, fit_temperature, stratified_folds
from vidcls_batch.labeling.calibration_learn import (
    ENSEMBLE,
    FEW_SHOT,
    METHODS,
    LabeledEvidence,
    held_out,
    learn_calibration,
    try_few_shot,
)
from vidcls_batch.labeling.calibration_metrics import quality
from vidcls_batch.labeling.labeler import LabelingSettings, MemberEvidence, member_probabilities, pool_members
from vidcls_batch.labeling.mapping import identity_map

K = 12
TEMPERATURE = METHODS["temperature"]


def members_of(seed: int, *, clips: int, strengths: tuple[float, ...], boost: float = 3.0) -> LabeledEvidence:
    """Members of some strength each, all surer than they should be; the last has an embedding that tells the label."""
    rng = np.random.default_rng(seed)
    truth = np.arange(clips) % K
    found = []
    for strength in strengths:
        logits = rng.normal(size=(clips, K))
        logits[np.arange(clips), truth] += strength
        found.append(MemberEvidence(logits * boost))
    embedding = rng.normal(size=(clips, 16)) * 0.6 + 2 * np.eye(K, 16)[truth]
    found[-1] = replace(found[-1], embedding=embedding)
    return LabeledEvidence(tuple(found), truth)


def settings_of(members: int, rule: str) -> LabelingSettings:
    return LabelingSettings(
        labels=tuple(f"l{k}" for k in range(K)),
        maps=(identity_map(K),) * members,
        weights=(1.0,) * members,
        top_k=3,
        rule=rule,
    )


def pooled(evidence: LabeledEvidence, how: LabelingSettings) -> np.ndarray:
    scores = [member_probabilities(i, m, settings=how) for i, m in enumerate(evidence.members)]
    return pool_members(scores, present=[m.present for m in evidence.members], settings=how).scores


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("clips", [96, 240])
def test_a_stacked_ensemble_is_as_sure_of_new_clips_as_it_is_right(seed, clips):
    """The temperature learned on the clips the stacking was learned on, as a foil, is far too sure."""
    known = members_of(seed, clips=clips, strengths=(1.2, 1.0, 0.8, 0.5))
    new = members_of(seed + 100, clips=6000, strengths=(1.2, 1.0, 0.8, 0.5))
    how = settings_of(4, "stacking")
    learned = learn_calibration(known, settings=how, methods=[TEMPERATURE] * 5, folds=5)
    after = quality(pooled(new, replace(how, calibration=learned)), new.truth)

    scores = [
        member_probabilities(i, m, settings=replace(how, calibration=learned)) for i, m in enumerate(known.members)
    ]
    seen = Calibration(learned.members, stacking=fit_stacking(scores, known.truth))
    fooled = replace(seen, ensemble=fit_temperature(pooled(known, replace(how, calibration=seen)), known.truth))
    foil = quality(pooled(new, replace(how, calibration=fooled)), new.truth)
    assert after.ece < 0.06
    assert after.nll < foil.nll
    assert after.ece < foil.ece / 2

    place = stratified_folds(known.truth, folds=5)
    told, here = held_out(known, place, names=list("abcd"), settings=how, methods=[TEMPERATURE] * 5)[ENSEMBLE]
    report = quality(told, known.truth[here])
    assert report.accuracy == pytest.approx(after.accuracy, abs=0.12)
    assert report.nll == pytest.approx(after.nll, abs=0.25)


def test_a_cache_of_the_known_clips_does_not_take_the_stacking_for_itself():
    """Its own clips are in the cache: by their scores it would look as if it were always right."""
    rng = np.random.default_rng(3)
    truth = np.arange(240) % K
    logits = rng.normal(size=(2, 240, K))
    logits[0, np.arange(240), truth] += 2.0
    noise = rng.normal(size=(240, 16))
    known = LabeledEvidence((MemberEvidence(logits[0]), MemberEvidence(logits[1], embedding=noise)), truth)
    how = settings_of(2, "stacking")
    methods = [TEMPERATURE, FEW_SHOT["probe"], TEMPERATURE]
    learned = learn_calibration(known, settings=how, methods=methods, folds=5)
    assert learned.stacking is not None
    assert learned.stacking.exponents[1].mean() < 0.2 * learned.stacking.exponents[0].mean()


def test_clips_that_are_all_right_do_not_make_scores_of_one():
    scores = np.full((40, K), 0.2 / (K - 1))
    truth = np.arange(40) % K
    scores[np.arange(40), truth] = 0.8
    assert 0.9 < fit_temperature(scores, truth).apply(scores, embedding=None).max() < 0.997
    assert fit_temperature(scores, truth, penalty=0.0).apply(scores, embedding=None).max() > 0.9999


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_temperature_is_the_best_of_a_grid(seed):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.full(4, 0.5), 30)
    truth = rng.integers(0, 4, 30)
    found = fit_temperature(scores, truth).temperature

    def loss(temperature: float) -> float:
        nll = 0.0
        for row, label in zip(scores, truth, strict=True):
            powers = [max(float(p), 1e-300) ** (1 / temperature) for p in row]
            nll -= np.log(max(powers[label] / sum(powers), 1e-300))
        return (nll + np.log(temperature) ** 2) / len(truth)

    assert loss(found) <= min(loss(t) for t in np.geomspace(0.1, 40, 60)) + 1e-6


def test_few_shot_ways_are_tried_on_the_clips_that_the_member_has_scored():
    known = members_of(5, clips=120, strengths=(1.0, 0.2))
    lacking = np.arange(120) % 3 != 0
    broken = np.where(lacking[:, None], known.members[1].logits, np.nan)
    half = replace(known.members[1], logits=broken, present=lacking)
    evidence = LabeledEvidence((known.members[0], half), known.truth)
    place = stratified_folds(evidence.truth, folds=4)
    ways = try_few_shot(1, evidence, place, settings=settings_of(2, "weighted_mean"))
    assert set(ways) == set(FEW_SHOT)
    assert ways["cache"].accuracy > ways["temperature"].accuracy + 0.2


def heard_and_seen(seed: int, *, clips: int) -> LabeledEvidence:
    """Labels 0 to 5 are told by sound, 6 to 11 by sight; elsewhere a member is half as sure of one of its own labels.

    A fifth of the clips has no sound.
    """
    rng = np.random.default_rng(seed)
    truth, rows = np.arange(clips) % K, np.arange(clips)
    heard = truth < K // 2
    hears, looks = rng.normal(size=(2, clips, K))
    hears[rows, np.where(heard, truth, rng.integers(0, K // 2, clips))] += np.where(heard, 3.0, 1.5)
    looks[rows, np.where(heard, rng.integers(K // 2, K, clips), truth)] += np.where(heard, 1.5, 3.0)
    return LabeledEvidence((MemberEvidence(looks), MemberEvidence(hears, present=rng.random(clips) < 0.8)), truth)


def test_weights_per_label_learned_from_labeled_clips_beat_any_weight_per_member():
    """Audio-visual late fusion: the member that listens decides about sounds, the one that looks about sights."""
    known, new = heard_and_seen(0, clips=480), heard_and_seen(1, clips=4800)
    plain = settings_of(2, "log_pool")
    by_member = [
        quality(pooled(new, replace(plain, weights=(1 - w, w))), new.truth).accuracy for w in np.linspace(0, 0.95, 20)
    ]
    how = settings_of(2, "stacking")
    learned = learn_calibration(known, settings=how, methods=[TEMPERATURE] * 3, folds=5)
    after = quality(pooled(new, replace(how, calibration=learned)), new.truth)
    looks, hears = learned.stacking.exponents
    assert hears[: K // 2].mean() > 2 * looks[: K // 2].mean()
    assert looks[K // 2 :].mean() > 2 * hears[K // 2 :].mean()
    assert after.accuracy > max(by_member) + 0.1
    shared = quality(pooled(new, replace(how, calibration=replace(learned, incomplete=None))), new.truth)
    assert after.nll < shared.nll - 0.1
    assert after.ece < min(0.06, shared.ece)
    heard = new.present(1)
    assert quality(pooled(new.part(heard), replace(how, calibration=learned)), new.truth[heard]).ece < 0.05


@pytest.mark.parametrize("few_shot", [False, True])
def test_labels_drawn_at_random_are_held_out_at_chance(few_shot):
    """Nothing of a clip's own label reaches its held-out score; what was learned says that it knows nothing."""
    known = members_of(7, clips=480, strengths=(3.0, 3.0))
    drawn = replace(known, truth=np.random.default_rng(8).integers(0, K, 480))
    place = stratified_folds(drawn.truth, folds=5)
    methods = [TEMPERATURE, FEW_SHOT["cache"] if few_shot else TEMPERATURE, TEMPERATURE]
    scores, here = held_out(drawn, place, names=["a", "b"], settings=settings_of(2, "stacking"), methods=methods)[
        ENSEMBLE
    ]
    found = quality(scores, drawn.truth[here])
    assert found.accuracy < 2.2 / K
    assert found.ece < 0.08
    assert found.nll == pytest.approx(np.log(K), abs=0.15)
