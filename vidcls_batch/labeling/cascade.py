"""Cheap members first; the others only for clips whose margin is low. Pure numpy; the models are a function."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.labeling.ensemble import Mask, decide
from vidcls_batch.labeling.labeler import LabelingSettings, MemberEvidence, member_probabilities, pool_members

# What the column `cascade` says of a clip: the first members alone were sure; all were asked; all were asked of a sure
# clip to see what that costs, and the label stayed or became another.
FIRST, ALL, AUDIT_SAME, AUDIT_OTHER = "first", "all", "audit_same", "audit_other"


@dataclass(frozen=True, slots=True)
class Cascade:
    """Which members (positions) score every clip, and when the rest is asked."""

    first: tuple[int, ...]
    margin: float  # of the first members' ensemble; clips below it go on to the rest
    audit_share: float  # of the other clips, this share goes on as well


@dataclass(frozen=True, slots=True)
class CascadedScores:
    """Members' evidence of B clips by position, each present where it was asked; milliseconds and, once all members
    have been asked, routes by clip.
    """

    members: Mapping[int, MemberEvidence]
    routes: NDArray[np.object_] | None
    infer_ms: NDArray[np.float64]


Score = Callable[[int, NDArray[np.int64]], MemberEvidence]
"""Member's position and positions of clips -> what it says of them."""


def score_in_steps(
    score: Score,
    *,
    cascade: Cascade,
    clip_ids: Sequence[str],
    settings: LabelingSettings,
    held: Sequence[int] | None = None,
    known: Mapping[int, MemberEvidence] | None = None,
) -> CascadedScores:
    """Ask the first members about every clip and the others about those that need it.

    Only the members `held` (None: all) are asked here; of others there is `known` evidence, of the first members too
    unless they are held.
    """
    clips, count = len(clip_ids), len(settings.maps)
    held = range(count) if held is None else held
    everyone = np.arange(clips)
    started = time.perf_counter()
    found = {**(known or {}), **{m: score(m, everyone) for m in cascade.first if m in held}}
    first_s = time.perf_counter() - started
    first_labels, margins = _decided([found[m] for m in cascade.first], settings=settings.of_members(cascade.first))
    unsure = margins < cascade.margin
    audited = ~unsure & np.array([is_audited(c, cascade.audit_share) for c in clip_ids], np.bool_)
    asked = np.flatnonzero(unsure | audited)
    started = time.perf_counter()
    for m in held:
        if m not in found:
            width = settings.maps[m].num_outputs
            nothing = MemberEvidence(np.zeros((clips, width), np.float32), present=np.zeros(clips, np.bool_))
            found[m] = _spread(score(m, asked), asked, clips=clips) if len(asked) else nothing
    rest_s = time.perf_counter() - started
    infer_ms = np.full(clips, first_s * 1e3 / max(clips, 1))
    infer_ms[asked] += rest_s * 1e3 / max(len(asked), 1)
    if len(found) < count:
        return CascadedScores(found, None, infer_ms)
    labels, _ = _decided([found[m] for m in range(count)], settings=settings)
    routes = np.full(clips, FIRST, object)
    routes[unsure] = ALL
    routes[audited] = np.where(labels[audited] == first_labels[audited], AUDIT_SAME, AUDIT_OTHER)
    return CascadedScores(found, routes, infer_ms)


def is_audited(clip_id: str, share: float) -> bool:
    """Whether a sure clip is asked about all the same; the same answer each time it is scored."""
    return zlib.crc32(clip_id.encode()) < share * 2**32


@dataclass(frozen=True, slots=True)
class CascadeTally:
    """What a cascade saved and what it cost, over the clips so far."""

    clips: int = 0
    asked_all: int = 0  # their margin was low
    audited: int = 0
    audited_other: int = 0  # all members together gave another label than the first
    infer_ms: float = 0.0
    whole_ms: float = 0.0  # of the clips on which all members ran

    def add(self, routes: Sequence[str | None], infer_ms: Sequence[float | None]) -> "CascadeTally":
        """With the rows' `cascade` and `infer_ms`; rows that have none are left out."""
        pairs = [(r, ms or 0.0) for r, ms in zip(routes, infer_ms, strict=True) if r is not None]
        return replace(
            self,
            clips=self.clips + len(pairs),
            asked_all=self.asked_all + sum(r == ALL for r, _ in pairs),
            audited=self.audited + sum(r in (AUDIT_SAME, AUDIT_OTHER) for r, _ in pairs),
            audited_other=self.audited_other + sum(r == AUDIT_OTHER for r, _ in pairs),
            infer_ms=self.infer_ms + sum(ms for _, ms in pairs),
            whole_ms=self.whole_ms + sum(ms for r, ms in pairs if r != FIRST),
        )

    def __str__(self) -> str:
        if not self.clips:
            return "Cascade: no clip was scored"
        whole = self.asked_all + self.audited
        text = f"Cascade: all members for {self.asked_all:,} of {self.clips:,} clips (and {self.audited:,} audited)"
        if whole:
            full = self.whole_ms / whole * self.clips
            text += f"; {self.infer_ms / full:.0%} of the inference time of asking all of them" if full else ""
        if self.audited:
            kept = 1 - self.audited_other / self.audited
            sure = (self.clips - self.asked_all) / self.clips
            text += f"; labels as all members would give them: {kept * sure + 1 - sure:.1%}, by the audited clips"
        return text


def _decided(
    members: Sequence[MemberEvidence], *, settings: LabelingSettings
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    scores = [member_probabilities(i, member, settings=settings) for i, member in enumerate(members)]
    present = [member.present for member in members]
    masked = [
        s if here is None else np.where(here[:, None], s, s.dtype.type(0))
        for s, here in zip(scores, present, strict=True)
    ]
    pooled = pool_members(masked, present=present, settings=settings)
    labels = len(settings.labels)
    tie_break = None if pooled.tie_break is None else pooled.tie_break[:, :labels]
    decision = decide(pooled.scores[:, :labels], top_k=1, tie_break=tie_break)
    return decision.label_id, decision.margin


def _spread(some: MemberEvidence, asked: NDArray[np.int64], *, clips: int) -> MemberEvidence:
    """Evidence of the `asked` clips among all, absent elsewhere."""

    def among_all(values: NDArray[np.generic] | None) -> NDArray[np.generic] | None:
        if values is None:
            return None
        whole = np.zeros((clips, *values.shape[1:]), values.dtype)
        whole[asked] = values
        return whole

    here: Mask = np.ones(len(asked), np.bool_) if some.present is None else some.present
    present = np.zeros(clips, np.bool_)
    present[asked] = here
    logits = among_all(some.logits)
    return MemberEvidence(logits, among_all(some.embedding), among_all(some.context), present)  # type: ignore[arg-type]
