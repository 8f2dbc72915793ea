import numpy as np
import pytest

from vidcls_batch.label_sets import plain_label_set
from vidcls_batch.labeling.labeler import LabelingSettings, MemberEvidence, label_clips
from vidcls_batch.labeling.mapping import LabelMap, map_labels
from vidcls_batch.schema import MemberColumns

RUN = plain_label_set("run", ("a", "b"))
TWO = map_labels(("a", "b"), label_set=RUN)
# Two labels and a negative prompt, which goes to the place behind the labels.
NEGATIVE = LabelMap(3, 3, np.array([0, 1, 2]), np.array([0, 1, 2]), np.ones(3))
BESIDE = LabelMap(2, 3, np.array([0, 1]), np.array([0, 1]), np.ones(2))


def labeled(*members: MemberEvidence, **changes: object) -> dict[str, list[object]]:
    given = {"labels": RUN.labels, "maps": (TWO,) * len(members), "weights": (1.0,) * len(members), "top_k": 2}
    settings = LabelingSettings(**(given | changes))
    columns = [MemberColumns(f"m{i}") for i in range(len(members))]
    found = label_clips(members, settings=settings, columns=columns)
    return {name: column.to_pylist() for name, column in found.columns.items()}


def log(*rows: list[float]) -> MemberEvidence:
    return MemberEvidence(np.log(np.array(rows)))


def test_a_negative_prompt_wins_over_labels_that_are_less_likely():
    found = labeled(log([0.2, 0.1, 0.7], [0.5, 0.1, 0.4]), maps=(NEGATIVE,), has_negatives=True)
    assert found["label"] == ["none of these", "a"]
    assert found["label_id"] == [-1, 0]
    assert found["score"] == pytest.approx([0.2, 0.5])
    assert found["topk_labels"] == [["a", "b"], ["a", "b"]]
    assert found["m0_label"] == ["a", "a"]


def test_a_member_without_negatives_does_not_speak_about_them():
    found = labeled(
        log([0.2, 0.1, 0.7]), log([0.9, 0.1]), maps=(NEGATIVE, BESIDE), has_negatives=True, weights=(1.0, 1.0)
    )
    total = 0.55 + 0.1 + 0.7
    assert found["score"] == pytest.approx([0.55 / total])
    assert found["label"] == ["none of these"]


def test_score_below_the_threshold_is_none_of_these():
    found = labeled(log([0.6, 0.4], [0.9, 0.1]), none_below=0.7, none_label="other")
    assert found["label"] == ["other", "a"]
    assert found["label_id"] == [-1, 0]


def test_more_rows_than_fit_at_once_keep_their_order():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2500, 2))
    found = labeled(MemberEvidence(logits))
    assert found["label_id"] == logits.argmax(axis=1).tolist()
    assert len(found["topk_labels"]) == 2500


def test_numbers_of_an_absent_member_mean_nothing_even_if_they_are_none():
    absent = MemberEvidence(np.array([[np.nan, np.nan], [0.0, 1.0]]), present=np.array([False, True]))
    found = labeled(log([0.8, 0.2], [0.8, 0.2]), absent)
    assert found["label"] == ["a", "a"]
    assert found["score"][0] == pytest.approx(0.8)
    assert found["agreement"] == [1.0, 0.5]
    assert found["divergence"][0] == 0
    assert found["divergence"][1] > 0.1
    assert found["m1_label"] == [None, "b"]
