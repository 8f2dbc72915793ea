"""Learning a whole ensemble's calibration: its members, their stacking, then the ensemble, each from honest scores.

What is learned from scores of clips that those below it were learned on takes them for better than they are: a member
looks sure of the clips it has seen, and a temperature of the ensemble follows. So stacking and the ensemble learn from
scores of clips that were left out of learning the members (Wolpert 1992, stacked generalization).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.errors import ConfigError
from vidcls_batch.labeling.calibration import Calibration, Calibrator, calibrated
from vidcls_batch.labeling.calibration_fit import (
    fit_cache,
    fit_isotonic,
    fit_prior,
    fit_probe,
    fit_stacking,
    fit_temperature,
    fit_vector,
    stratified_folds,
)
from vidcls_batch.labeling.calibration_metrics import Quality, quality
from vidcls_batch.labeling.ensemble import Mask, Scores
from vidcls_batch.labeling.labeler import (
    LabelingSettings,
    MemberEvidence,
    member_probabilities,
    pool_members,
    whole_clips,
)
from vidcls_batch.labeling.rules import Stacking

ENSEMBLE = "ensemble"
Truth = NDArray[np.int64]
Folds = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to calibrate: clips it needs at least, given the number of labels, and how it learns."""

    needs: Callable[[int], int]
    fit: Callable[[Scores, NDArray[np.floating] | None, Truth], Calibrator]
    embeds: bool = False


METHODS: Mapping[str, Method] = {
    "temperature": Method(lambda _: 20, lambda s, e, t: fit_temperature(s, t)),
    "vector": Method(lambda k: max(20, 2 * k), lambda s, e, t: fit_vector(s, t)),
    "isotonic": Method(lambda k: max(50, 10 * k), lambda s, e, t: fit_isotonic(s, t)),
}
FEW_SHOT: Mapping[str, Method] = {
    "temperature": METHODS["temperature"],
    "prior": Method(lambda _: 20, lambda s, e, t: fit_prior(s, t)),
    "vector": Method(lambda _: 20, lambda s, e, t: fit_vector(s, t)),
    "cache": Method(lambda _: 20, lambda s, e, t: fit_cache(s, _needed(e), t), embeds=True),
    "probe": Method(
        lambda _: 20, lambda s, e, t: fit_probe(_needed(e), t, num_labels=s.shape[1], penalty=0.05), embeds=True
    ),
}


@dataclass(frozen=True, slots=True)
class LabeledEvidence:
    """Members' evidence of N clips whose labels are known."""

    members: tuple[MemberEvidence, ...]
    truth: Truth

    def part(self, rows: Mask) -> "LabeledEvidence":
        """The same for some of the clips."""
        return LabeledEvidence(tuple(m.part(rows) for m in self.members), self.truth[rows])

    def present(self, index: int) -> Mask:
        """Which clips member `index` has a score of, [N]."""
        here = self.members[index].present
        return np.ones(len(self.truth), np.bool_) if here is None else here


def learn_calibration(
    evidence: LabeledEvidence, *, settings: LabelingSettings, methods: Sequence[Method], folds: int
) -> Calibration:
    """Learn `methods[m]` for member m, the stacking where that is the settings' rule, then `methods[-1]` on top."""
    place = stratified_folds(evidence.truth, folds=folds)
    members = _learn_members(evidence, settings=settings, methods=methods)
    apart = _members_apart(evidence, place, settings=settings, methods=methods)
    learned = Calibration(members)
    if settings.rule == "stacking":
        learned = replace(learned, stacking=_learn_stacking(apart, evidence))
    pooled = _pooled_apart(apart, evidence, place, settings=replace(settings, calibration=learned))
    whole = whole_clips([m.present for m in evidence.members], clips=len(evidence.truth))
    method, truth = methods[-1], evidence.truth
    least = method.needs(pooled.shape[1])
    if min(whole.sum(), (~whole).sum()) < least:
        return replace(learned, ensemble=method.fit(pooled, None, truth))
    # Clips that a member lacks have a temperature of their own where enough of them have a known label.
    return replace(
        learned,
        ensemble=method.fit(pooled[whole], None, truth[whole]),
        incomplete=method.fit(pooled[~whole], None, truth[~whole]),
    )


def held_out(
    evidence: LabeledEvidence,
    place: Folds,
    *,
    names: Sequence[str],
    settings: LabelingSettings,
    methods: Sequence[Method] | None,
) -> dict[str, tuple[Scores, Mask]]:
    """Each member's and the ensemble's scores of every clip that has one, learned without its fold; and which clips.

    Without `methods` they are as they are, pooled by `weighted_mean` in place of a stacking.
    """
    found: dict[str, Scores] = {}
    plain = replace(settings, rule="weighted_mean") if settings.rule == "stacking" else settings
    folds = int(place.max()) + 1
    for fold in range(folds):
        out = place == fold
        part, learned = evidence.part(out), plain
        if methods is not None:
            rest = learn_calibration(evidence.part(~out), settings=settings, methods=methods, folds=folds)
            learned = replace(settings, calibration=rest)
        scores = [member_probabilities(i, m, settings=learned) for i, m in enumerate(part.members)]
        for name, values in zip([*names, ENSEMBLE], [*scores, _pool(scores, part, settings=learned)], strict=True):
            found.setdefault(name, np.zeros((len(place), values.shape[1])))[out] = values
    here = [evidence.present(m) for m in range(len(names))]
    masks = [*here, np.any(here, axis=0)]
    return {name: (found[name][mask], mask) for name, mask in zip([*names, ENSEMBLE], masks, strict=True)}


def try_few_shot(
    index: int, evidence: LabeledEvidence, place: Folds, *, settings: LabelingSettings
) -> dict[str, Quality]:
    """What each way gives for one zero-shot member on held-out folds, by its name."""
    here = evidence.present(index)
    member, truth, place = evidence.members[index].part(here), evidence.truth[here], place[here]
    scores = member_probabilities(index, member, settings=settings)
    found: dict[str, Quality] = {}
    for way, method in FEW_SHOT.items():
        if method.embeds and member.embedding is None:
            continue
        after = np.empty_like(scores)
        for fold in range(int(place.max()) + 1):
            out = place == fold
            fitted = method.fit(scores[~out], _rows(member.embedding, ~out), truth[~out])
            after[out] = calibrated(scores[out], fitted, embedding=_rows(member.embedding, out))
        found[way] = quality(after, truth)
    return found


def _learn_members(
    evidence: LabeledEvidence, *, settings: LabelingSettings, methods: Sequence[Method]
) -> tuple[Calibrator | None, ...]:
    found: list[Calibrator | None] = []
    for index, member in enumerate(evidence.members):
        here = evidence.present(index)
        scores = member_probabilities(index, member, settings=settings)[here]
        seen = _rows(member.embedding, here)
        found.append(methods[index].fit(scores, seen, evidence.truth[here]) if here.any() else None)
    return tuple(found)


def _members_apart(
    evidence: LabeledEvidence, place: Folds, *, settings: LabelingSettings, methods: Sequence[Method]
) -> list[Scores]:
    """Each member's calibrated scores [N, K], of each clip by what was learned from the other folds."""
    found: list[Scores] = []
    for fold in range(int(place.max()) + 1):
        out = place == fold
        rest = _learn_members(evidence.part(~out), settings=settings, methods=methods)
        learned = replace(settings, calibration=Calibration(rest))
        for index, member in enumerate(evidence.part(out).members):
            values = member_probabilities(index, member, settings=learned)
            if index == len(found):
                found.append(np.zeros((len(place), values.shape[1]), values.dtype))
            found[index][out] = values
    return found


def _learn_stacking(scores: Sequence[Scores], evidence: LabeledEvidence) -> Stacking:
    whole = whole_clips([m.present for m in evidence.members], clips=len(evidence.truth))
    if not whole.any():
        raise ConfigError("No labeled clip has a score of every member, so their stacking cannot be learned")
    return fit_stacking([s[whole] for s in scores], evidence.truth[whole])


def _pooled_apart(
    scores: Sequence[Scores], evidence: LabeledEvidence, place: Folds, *, settings: LabelingSettings
) -> Scores:
    """The ensemble's scores [N, K]; by a stacking, each clip's is learned from the other folds."""
    if settings.rule != "stacking":
        return _pool(scores, evidence, settings=settings)
    assert settings.calibration is not None  # with the members', in `learn_calibration`
    pooled = np.zeros_like(scores[0])
    for fold in range(int(place.max()) + 1):
        out = place == fold
        rest = _learn_stacking([s[~out] for s in scores], evidence.part(~out))
        learned = replace(settings, calibration=replace(settings.calibration, stacking=rest))
        pooled[out] = _pool([s[out] for s in scores], evidence.part(out), settings=learned)
    return pooled


def _pool(scores: Sequence[Scores], evidence: LabeledEvidence, *, settings: LabelingSettings) -> Scores:
    return pool_members(scores, present=[m.present for m in evidence.members], settings=settings).scores


def _rows(values: NDArray[np.floating] | None, rows: Mask) -> NDArray[np.floating] | None:
    return None if values is None else values[rows]


def _needed(embedding: NDArray[np.floating] | None) -> NDArray[np.floating]:
    assert embedding is not None  # `Method.embeds` sees to it
    return embedding
