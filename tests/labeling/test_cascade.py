import numpy as np
import pytest

from vidcls_batch.label_sets import plain_label_set
from vidcls_batch.labeling.cascade import Cascade, CascadeTally, is_audited, score_in_steps
from vidcls_batch.labeling.ensemble import softmax
from vidcls_batch.labeling.labeler import LabelingSettings, MemberEvidence
from vidcls_batch.labeling.mapping import map_labels

LABELS = ("a", "b", "c")
SAME = map_labels(LABELS, label_set=plain_label_set("run", LABELS))
CLIPS = 200
IDS = [f"clip{i}" for i in range(CLIPS)]


def settings(members: int) -> LabelingSettings:
    return LabelingSettings(labels=LABELS, maps=(SAME,) * members, weights=(1.0,) * members, top_k=1)


@pytest.fixture
def logits() -> np.ndarray:
    """Of three members over all clips."""
    return np.random.default_rng(0).normal(size=(3, CLIPS, 3)) * 2


def run(logits: np.ndarray, *, margin: float, audit_share: float = 0.0, first: tuple[int, ...] = (0,)):
    asked: dict[int, list[int]] = {}

    def score(member: int, clips: np.ndarray) -> MemberEvidence:
        asked[member] = clips.tolist()
        return MemberEvidence(logits[member][clips])

    cascade = Cascade(first=first, margin=margin, audit_share=audit_share)
    return score_in_steps(score, cascade=cascade, clip_ids=IDS, settings=settings(3)), asked


def margins(logits: np.ndarray) -> np.ndarray:
    ranked = np.sort(softmax(logits), axis=1)
    return ranked[:, -1] - ranked[:, -2]


def test_only_clips_of_low_margin_are_shown_to_the_others(logits):
    found, asked = run(logits, margin=0.5)
    unsure = np.flatnonzero(margins(logits[0]) < 0.5).tolist()
    assert asked == {0: list(range(CLIPS)), 1: unsure, 2: unsure}
    assert [i for i, route in enumerate(found.routes) if route == "all"] == unsure
    assert np.flatnonzero(found.members[1].present).tolist() == unsure
    assert np.array_equal(found.members[2].logits[unsure], logits[2][unsure])


@pytest.mark.parametrize(("margin", "share"), [(0.0, 0.0), (1.1, 1.0)])
def test_margin_at_the_ends_asks_nobody_or_everybody(logits, margin, share):
    found, asked = run(logits, margin=margin)
    assert len(asked.get(1, [])) == share * CLIPS
    assert len(found.members) == 3


def test_audited_clips_tell_what_the_first_members_missed(logits):
    found, asked = run(logits, margin=0.3, audit_share=0.5, first=(0, 1))
    sure = margins(np.log((softmax(logits[0]) + softmax(logits[1])) / 2)) >= 0.3
    chosen = sure & np.array([is_audited(i, 0.5) for i in IDS])
    assert 20 < chosen.sum() < sure.sum()
    assert asked[2] == np.flatnonzero(chosen | ~sure).tolist()
    two = (softmax(logits[0]) + softmax(logits[1])).argmax(axis=1)
    three = (softmax(logits[0]) + softmax(logits[1]) + softmax(logits[2])).argmax(axis=1)
    expected = ["all" if not s else "first" for s in sure]
    for i in np.flatnonzero(chosen):
        expected[i] = "audit_same" if two[i] == three[i] else "audit_other"
    assert found.routes.tolist() == expected


def test_tally_tells_time_saved_and_labels_kept():
    routes = ["first"] * 70 + ["all"] * 20 + ["audit_same"] * 9 + ["audit_other"] + [None] * 5
    tally = CascadeTally().add(routes, [2.0] * 70 + [10.0] * 30 + [None] * 5)
    assert (tally.clips, tally.asked_all, tally.audited, tally.audited_other) == (100, 20, 10, 1)
    assert "44% of the inference time" in str(tally)
    assert "92.0%" in str(tally)  # 80 sure clips, of which 90 % keep their label
