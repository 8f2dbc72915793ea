"""From what the members say of clips to the columns of the table: the same code for a run and for a relabeling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vidcls_batch.labeling.calibration import Calibration, calibrated
from vidcls_batch.labeling.ensemble import NONE_ID, Decision, Mask, Ranking, Scores, agreement, decide, divergence, rank
from vidcls_batch.labeling.mapping import LabelMap
from vidcls_batch.labeling.rules import RULES, Panel, Pooled, make_panel, stack
from vidcls_batch.schema import LABEL, MemberColumns

# Rows at a time: a member's [B, 400] float32 then stays in the cache from one step to the next.
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class LabelingSettings:
    """How members' scores become labels; the same in a run's workers and in `relabel`.

    `weights[m]` is member m's, `label_weights[m]` [K] multiplies it per label. `none_label` is what a clip gets when
    its best score is below `none_below`, or when the members' negative prompts, the last of the maps' labels with
    `has_negatives`, score higher.
    """

    labels: tuple[str, ...]
    maps: tuple[LabelMap, ...]
    weights: tuple[float, ...]
    top_k: int
    rule: str = "weighted_mean"
    missing: str = "skip"
    label_weights: tuple[tuple[float, ...], ...] | None = None
    none_label: str = "none of these"
    none_below: float = 0.0
    has_negatives: bool = False
    calibration: Calibration | None = None

    def of_member(self, index: int) -> "LabelingSettings":
        """The settings of an ensemble that is this member alone."""
        return replace(self.of_members((index,)), weights=(1.0,), label_weights=None, calibration=None)

    def of_members(self, indices: Sequence[int]) -> "LabelingSettings":
        """The settings of an ensemble of these members; what was learned for all of them together is left out."""
        of_labels, known = self.label_weights, self.calibration
        return replace(
            self,
            maps=tuple(self.maps[i] for i in indices),
            weights=tuple(self.weights[i] for i in indices),
            label_weights=None if of_labels is None else tuple(of_labels[i] for i in indices),
            rule="log_pool" if self.rule == "stacking" else self.rule,
            calibration=None if known is None else Calibration(tuple(known.members[i] for i in indices)),
        )


@dataclass(frozen=True, slots=True)
class MemberEvidence:
    """What one member says of B clips: `logits` [B, K'], views combined, and where it has one an `embedding` [B, D].

    `present` [B] is False for clips it has nothing to say of; their numbers mean nothing.
    """

    logits: NDArray[np.floating]
    embedding: NDArray[np.floating] | None = None
    context: NDArray[np.floating] | None = None
    present: Mask | None = None

    def part(self, rows: slice | Mask | NDArray[np.int64]) -> "MemberEvidence":
        """The same for some of the clips."""
        return MemberEvidence(*(None if v is None else v[rows] for v in self._values))  # type: ignore[arg-type]

    @property
    def _values(self) -> tuple[NDArray[np.generic] | None, ...]:
        return (self.logits, self.embedding, self.context, self.present)


@dataclass(frozen=True, slots=True)
class LabeledClips:
    """Columns for B clips (`schema.LABEL` and the members'), null where `unlabeled` tells why there is no label."""

    columns: Mapping[str, pa.Array]
    unlabeled: Mapping[int, str]  # clip's position -> reason


def label_clips(
    members: Sequence[MemberEvidence],
    *,
    settings: LabelingSettings,
    columns: Sequence[MemberColumns],
    pooled: Scores | None = None,
) -> LabeledClips:
    """Label B clips from what each member says of them; the order of `members` is that of the settings.

    `pooled` [B, K] are the ensemble's probabilities where they are known already, in place of the settings' rule.
    """
    clips = len(members[0].logits)
    parts: list[Mapping[str, pa.Array]] = []
    unlabeled: dict[int, str] = {}
    for start in range(0, clips, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        part = [member.part(rows) for member in members]
        known = None if pooled is None else Pooled(pooled[rows])
        some = _label_part(part, settings=settings, columns=columns, known=known)
        parts.append(some.columns)
        unlabeled |= {start + position: reason for position, reason in some.unlabeled.items()}
    return LabeledClips({name: pa.chunked_array([p[name] for p in parts]) for name in parts[0]}, unlabeled)


def member_votes(members: Sequence[MemberEvidence], *, settings: LabelingSettings) -> NDArray[np.int32]:
    """Each member's first label for B clips, [B, M]; -1 where it has no score."""
    votes = np.full((len(members[0].logits), len(members)), -1, np.int32)
    for m, member in enumerate(members):
        for start in range(0, len(votes), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            part = member.part(rows)
            first = member_probabilities(m, part, settings=settings)[:, : len(settings.labels)].argmax(axis=1)
            votes[rows, m] = first if part.present is None else np.where(part.present, first, -1)
    return votes


def member_probabilities(index: int, evidence: MemberEvidence, *, settings: LabelingSettings) -> Scores:
    """What member `index` says over the run's labels (and the negatives' place), calibrated; [B, K] or [B, K + 1]."""
    here, logits = evidence.present, evidence.logits
    if here is not None and not here.all():
        logits = np.where(here[:, None], logits, logits.dtype.type(0))  # they may be anything there, NaN too
    scores = settings.maps[index].probabilities(logits)
    if settings.calibration is None:
        return scores
    return calibrated(scores, settings.calibration.members[index], embedding=evidence.embedding)


def pool_members(
    probabilities: Sequence[Scores], *, present: Sequence[Mask | None], settings: LabelingSettings
) -> Pooled:
    """The ensemble's probabilities by the settings' rule, calibrated where the settings say so."""
    panel = _panel(probabilities, present=present, settings=settings)
    calibration = settings.calibration
    if settings.rule == "stacking":
        assert calibration is not None  # the config sees to it
        assert calibration.stacking is not None
        pooled = stack(panel, calibration.stacking)
    else:
        pooled = RULES[settings.rule](panel)
    if calibration is None or calibration.ensemble is None:
        return pooled
    scores = calibrated(pooled.scores, calibration.ensemble)
    whole = whole_clips(present, clips=len(scores))
    if calibration.incomplete is not None and not whole.all():
        scores = np.where(whole[:, None], scores, calibrated(pooled.scores, calibration.incomplete))
    return Pooled(scores, tie_break=pooled.tie_break)


def whole_clips(present: Sequence[Mask | None], *, clips: int) -> Mask:
    """Which of B clips every member has a score of."""
    found = np.ones(clips, np.bool_)
    for here in present:
        if here is not None:
            found &= here
    return found


def _panel(probabilities: Sequence[Scores], *, present: Sequence[Mask | None], settings: LabelingSettings) -> Panel:
    filled = list(probabilities)
    seen = list(present)
    if settings.missing == "uniform":
        for m, here in enumerate(seen):
            if here is not None and not here.all():
                knows = settings.maps[m].covers
                filled[m] = np.where(here[:, None], filled[m], (knows / knows.sum()).astype(filled[m].dtype))
                seen[m] = None
    of_labels = settings.label_weights
    weights: list[float | Scores] = []
    for m, weight in enumerate(settings.weights):
        if of_labels is None:
            weights.append(weight)
        else:
            extra = [1.0] if settings.has_negatives else []
            weights.append(weight * np.array([*of_labels[m], *extra]))
    return make_panel(filled, weights=weights, present=seen, covers=[label_map.covers for label_map in settings.maps])


def _label_part(
    members: Sequence[MemberEvidence],
    *,
    settings: LabelingSettings,
    columns: Sequence[MemberColumns],
    known: Pooled | None,
) -> LabeledClips:
    probabilities = [_masked(member_probabilities(m, e, settings=settings), e) for m, e in enumerate(members)]
    present = [member.present for member in members]
    pooled = known or pool_members(probabilities, present=present, settings=settings)
    unlabeled = _unlabeled(present, clips=len(pooled.scores), settings=settings, columns=columns)
    num_labels = len(settings.labels)
    decision = decide(pooled.scores[:, :num_labels], top_k=settings.top_k, tie_break=_labels_only(pooled, num_labels))
    votes = [w * (1.0 if here is None else here) for w, here in zip(settings.weights, present, strict=True)]
    rankings = [rank(scores[:, :num_labels], top_k=settings.top_k) for scores in probabilities]
    agree = agreement(decision.label_id, [ranking.ids[:, 0] for ranking in rankings], votes)
    differ = divergence(probabilities, votes)
    is_none = decision.score < settings.none_below
    if settings.has_negatives:
        is_none |= pooled.scores[:, num_labels] > decision.score
    gone = np.zeros(len(agree), np.bool_)
    gone[list(unlabeled)] = True
    found = _ensemble_columns(decision, agree, differ, is_none=is_none, gone=gone, settings=settings)
    for m, names in enumerate(columns):
        here = present[m]
        absent = gone if here is None else gone | ~here
        found |= _member_columns(names, rankings[m], members[m], absent=absent, settings=settings)
    return LabeledClips(found, unlabeled)


def _masked(scores: Scores, evidence: MemberEvidence) -> Scores:
    """Zeros for the clips of which the member said nothing."""
    here = evidence.present
    return scores if here is None or here.all() else np.where(here[:, None], scores, scores.dtype.type(0))


def _labels_only(pooled: Pooled, num_labels: int) -> Scores | None:
    return None if pooled.tie_break is None else pooled.tie_break[:, :num_labels]


def _unlabeled(
    present: Sequence[Mask | None], *, clips: int, settings: LabelingSettings, columns: Sequence[MemberColumns]
) -> dict[int, str]:
    here = np.stack([np.ones(clips, np.bool_) if p is None else p for p in present])
    counts = here & (np.array(settings.weights) > 0)[:, None]
    reasons = {int(i): "no member with weight has a score for this clip" for i in np.flatnonzero(~counts.any(axis=0))}
    if settings.missing == "fail":
        for i in np.flatnonzero(~here.all(axis=0)):
            lacking = [names.name for names, seen in zip(columns, here[:, i], strict=True) if not seen]
            reasons[int(i)] = f"no score of {', '.join(lacking)}, and ensemble.missing is fail"
    return reasons


def _ensemble_columns(
    decision: Decision, agree: Scores, differ: Scores, *, is_none: Mask, gone: Mask, settings: LabelingSettings
) -> dict[str, pa.Array]:
    names = pa.array([*settings.labels, settings.none_label], pa.string())
    ids = np.where(is_none, len(settings.labels), decision.label_id)
    return {
        "label": names.take(pa.array(ids, mask=gone)),
        "label_id": pa.array(np.where(is_none, NONE_ID, decision.label_id), LABEL.field("label_id").type, mask=gone),
        **{
            name: pa.array(values.astype(np.float32), mask=gone)
            for name, values in (
                ("score", decision.score),
                ("margin", decision.margin),
                ("entropy", decision.entropy),
                ("agreement", agree),
                ("divergence", differ),
            )
        },
        **_topk_columns(Ranking(decision.topk_ids, decision.topk_scores), gone, labels=settings.labels, prefix=""),
        "cascade": pa.nulls(len(gone), pa.string()),  # for a run that asks members in steps
    }


def _member_columns(
    names: MemberColumns, ranking: Ranking, evidence: MemberEvidence, *, absent: Mask, settings: LabelingSettings
) -> dict[str, pa.Array]:
    prefix = f"{names.name}_"
    labels = pa.array(settings.labels, pa.string())
    found = {
        f"{prefix}label": labels.take(pa.array(ranking.ids[:, 0], mask=absent)),
        f"{prefix}score": pa.array(ranking.scores[:, 0].astype(np.float32), mask=absent),
        **_topk_columns(ranking, absent, labels=settings.labels, prefix=prefix),
    }
    for column, width, values in (
        ("logits", names.num_logits, evidence.logits),
        ("embedding", names.embedding_dim, evidence.embedding),
        ("context", names.context_dim, evidence.context),
    ):
        if width is not None:
            # Kept also where the clip got no label: another rule may give it one.
            unseen = np.zeros_like(absent) if evidence.present is None else ~evidence.present
            kept = np.zeros((len(absent), width)) if values is None else values
            found[f"{prefix}{column}"] = _halves(kept, np.ones_like(absent) if values is None else unseen)
    return found


def _topk_columns(ranking: Ranking, gone: Mask, *, labels: Sequence[str], prefix: str) -> dict[str, pa.Array]:
    count = ranking.ids.shape[1]
    kept = ~gone
    offsets = pa.array(np.concatenate([[0], np.cumsum(kept * count)]).astype(np.int32))
    mask = pa.array(gone)
    names = pa.array(labels, pa.string()).take(pa.array(ranking.ids[kept].ravel()))
    scores = pa.array(ranking.scores[kept].ravel().astype(np.float32))
    return {
        f"{prefix}topk_labels": pa.ListArray.from_arrays(offsets, names, mask=mask),
        f"{prefix}topk_scores": pa.ListArray.from_arrays(offsets, scores, mask=mask),
    }


def _halves(values: NDArray[np.generic], absent: Mask) -> pa.Array:
    """Rows as float16 lists of fixed size, null where `absent`."""
    limit = np.finfo(np.float16).max
    clipped = np.where(absent[:, None], 0, values)
    flat = pa.array(np.clip(clipped, -limit, limit).astype(np.float16).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(absent) if absent.any() else None)
