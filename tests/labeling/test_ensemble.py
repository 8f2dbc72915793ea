import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vidcls_batch.labeling.ensemble import agreement, decide, softmax, weighted_mean

logits = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=st.floats(-1e4, 1e4))


@given(logits)
def test_softmax_rows_are_probabilities_in_the_order_of_the_logits(values):
    scores = softmax(values)
    assert np.allclose(scores.sum(axis=1), 1)
    assert (scores >= 0).all()
    for row, ranked in zip(values, scores, strict=True):
        assert ranked[row.argmax()] == ranked.max()


@given(logits, st.floats(-100, 100))
def test_softmax_ignores_a_shift_of_all_logits(values, shift):
    assert np.allclose(softmax(values), softmax(values + shift), atol=1e-6)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_weighted_mean_equals_a_plain_loop(weights, seed):
    members = [softmax(np.random.default_rng(seed + m).normal(size=(3, 5))) for m in range(len(weights))]
    mean = weighted_mean(members, weights)
    for clip in range(3):
        for label in range(5):
            expected = sum(w * m[clip, label] for w, m in zip(weights, members, strict=True)) / sum(weights)
            assert mean[clip, label] == pytest.approx(expected)
    assert np.allclose(mean.sum(axis=1), 1)


@pytest.mark.parametrize("weights", [[0, 0], [-1, 2], [1]])
def test_weights_that_cannot_weigh_are_refused(weights):
    members = [np.full((1, 2), 0.5)] * 2
    with pytest.raises(ValueError, match="weights"):
        weighted_mean(members, weights)


@given(logits, st.integers(1, 9))
def test_decision_equals_a_sorted_list(values, top_k):
    scores = softmax(values)
    decision = decide(scores, top_k=top_k)
    for clip, row in enumerate(scores):
        ranked = sorted(range(len(row)), key=lambda k: (-row[k], k))[:top_k]
        assert decision.topk_ids[clip].tolist() == ranked
        assert decision.label_id[clip] == ranked[0]
        assert decision.score[clip] == row.max()
        second = sorted(row)[-2] if len(row) > 1 else 0
        assert decision.margin[clip] == pytest.approx(row.max() - second)


def test_equal_scores_go_to_the_lower_id():
    decision = decide(np.array([[0.2, 0.4, 0.4]]), top_k=3)
    assert decision.topk_ids.tolist() == [[1, 2, 0]]
    assert decision.margin.tolist() == [0.0]


def test_entropy_runs_from_certain_to_no_idea():
    entropy = decide(np.array([[1.0, 0, 0, 0], [0.25] * 4]), top_k=1).entropy
    assert entropy.tolist() == pytest.approx([0.0, np.log(4)])


def test_agreement_is_the_share_of_weight_behind_the_label():
    votes = [np.array([1, 0]), np.array([1, 1]), np.array([2, 1])]
    assert agreement(np.array([1, 1]), votes, [2.0, 1.0, 1.0]).tolist() == [0.75, 0.5]
