import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vidcls_batch.labeling.ensemble import decide, divergence, entropy, rank, softmax
from vidcls_batch.labeling.rules import FLOOR, RANK_OFFSET, RULES, Panel, Stacking, make_panel, stack

seeds = st.integers(0, 2**32 - 1)
B, K = 4, 5


def random_panel(seed: int, *, members: int = 3) -> tuple[Panel, list[np.ndarray], list[float], np.ndarray, np.ndarray]:
    """A panel in which members miss clips and do not know labels; each clip has one that is whole."""
    rng = np.random.default_rng(seed)
    covers = rng.random((members, K)) < 0.7
    present = rng.random((members, B)) < 0.7
    covers[0], present[0], covers[:, 0] = True, True, True
    weights = rng.uniform(0.1, 3, members).tolist()
    scores = []
    for m in range(members):
        p = softmax(rng.normal(size=(B, K)) * 3) * covers[m]
        total = p.sum(axis=1, keepdims=True)
        scores.append(np.where(total > 0, p / np.where(total > 0, total, 1), 0) * present[m][:, None])
    panel = make_panel(scores, weights=weights, present=list(present), covers=list(covers))
    return panel, scores, weights, present, covers


def judges(b: int, k: int, present: np.ndarray, covers: np.ndarray) -> list[int]:
    return [m for m in range(len(present)) if present[m, b] and covers[m, k]]


def scaled(values: list[float]) -> list[float]:
    return [v / sum(values) for v in values]


@given(seeds)
def test_weighted_mean_equals_a_plain_loop(seed):
    panel, scores, weights, present, covers = random_panel(seed)
    pooled = RULES["weighted_mean"](panel).scores
    for b in range(B):
        row = []
        for k in range(K):
            who = judges(b, k, present, covers)
            row.append(sum(weights[m] * scores[m][b, k] for m in who) / sum(weights[m] for m in who))
        assert pooled[b] == pytest.approx(scaled(row))


@given(seeds)
def test_log_pool_equals_a_plain_loop(seed):
    panel, scores, weights, present, covers = random_panel(seed)
    pooled = RULES["log_pool"](panel).scores
    for b in range(B):
        row = []
        for k in range(K):
            who = judges(b, k, present, covers)
            log = sum(weights[m] * math.log(max(scores[m][b, k], FLOOR)) for m in who)
            row.append(math.exp(log / sum(weights[m] for m in who)))
        assert pooled[b] == pytest.approx(scaled(row))


@given(seeds)
def test_logit_mean_equals_a_plain_loop(seed):
    panel, scores, weights, present, covers = random_panel(seed)
    pooled = RULES["logit_mean"](panel).scores
    for b in range(B):
        row = []
        for k in range(K):
            total = 0.0
            who = judges(b, k, present, covers)
            for m in who:
                logs = [math.log(max(scores[m][b, j], FLOOR)) for j in range(K) if covers[m, j]]
                total += weights[m] * (math.log(max(scores[m][b, k], FLOOR)) - sum(logs) / len(logs))
            row.append(math.exp(total / sum(weights[m] for m in who)))
        assert pooled[b] == pytest.approx(scaled(row))


@given(seeds)
def test_logit_mean_is_the_log_pool_where_all_know_all(seed):
    rng = np.random.default_rng(seed)
    scores = [softmax(rng.normal(size=(B, K))) for _ in range(3)]
    panel = make_panel(scores, weights=[1.0, 2.0, 0.5], present=[None] * 3, covers=[None] * 3)
    assert np.allclose(RULES["logit_mean"](panel).scores, RULES["log_pool"](panel).scores)


@given(seeds)
def test_votes_equal_a_plain_loop(seed):
    panel, scores, weights, present, _ = random_panel(seed)
    for name, worth in (("weighted_vote", weights), ("majority", [1.0] * len(weights))):
        pooled = RULES[name](panel)
        for b in range(B):
            votes = [0.0] * K
            for m in range(len(weights)):
                if present[m, b]:
                    votes[max(range(K), key=lambda k: (scores[m][b, k], -k))] += worth[m]
            assert pooled.scores[b] == pytest.approx(scaled(votes))
        mean = RULES["weighted_mean"](panel).scores
        found = decide(pooled.scores, top_k=K, tie_break=pooled.tie_break).topk_ids
        for b in range(B):
            expected = sorted(range(K), key=lambda k: (-pooled.scores[b, k], -mean[b, k], k))
            assert found[b].tolist() == expected


@given(seeds)
def test_rank_fusion_equals_a_plain_loop(seed):
    panel, scores, weights, present, covers = random_panel(seed)
    pooled = RULES["rank_fusion"](panel).scores
    for b in range(B):
        fused = [0.0] * K
        for m in range(len(weights)):
            order = sorted(range(K), key=lambda k: (-scores[m][b, k], k))
            for place, k in enumerate(order, start=1):
                if present[m, b] and covers[m, k]:
                    fused[k] += weights[m] / (RANK_OFFSET + place)
        assert pooled[b] == pytest.approx(scaled(fused))


@given(seeds)
def test_stacking_equals_a_plain_loop(seed):
    panel, scores, weights, present, covers = random_panel(seed)
    rng = np.random.default_rng(seed)
    learned = Stacking(exponents=rng.uniform(0.1, 2, (len(weights), K)), bias=rng.normal(size=K))
    pooled = stack(panel, learned).scores
    for b in range(B):
        row = []
        for k in range(K):
            who = judges(b, k, present, covers)
            total = sum(learned.exponents[m, k] * math.log(max(scores[m][b, k], FLOOR)) for m in who)
            growth = learned.exponents[:, k].sum() / sum(learned.exponents[m, k] for m in who)
            row.append(math.exp(learned.bias[k] + total * growth))
        assert pooled[b] == pytest.approx(scaled(row))


@settings(max_examples=30)
@given(seeds, st.sampled_from(sorted(RULES)))
def test_members_order_does_not_matter(seed, name):
    panel, *_ = random_panel(seed)
    turned = Panel(panel.probabilities[::-1], panel.weights[::-1])
    assert np.allclose(RULES[name](panel).scores, RULES[name](turned).scores)


@given(seeds, st.sampled_from(sorted(RULES)))
def test_one_member_alone_keeps_its_ranking(seed, name):
    scores = softmax(np.random.default_rng(seed).normal(size=(B, K)))
    panel = make_panel([scores], weights=[2.0], present=[None], covers=[None])
    pooled = RULES[name](panel)
    found = rank(pooled.scores, top_k=K, tie_break=pooled.tie_break).ids
    assert found.tolist() == rank(scores, top_k=K).ids.tolist()


def test_a_label_weight_lets_one_member_decide_about_it():
    looks = np.array([[0.6, 0.4], [0.6, 0.4]])
    listens = np.array([[0.1, 0.9], [0.9, 0.1]])
    weights = [np.array([1.0, 0.0]), np.array([1.0, 9.0])]
    pooled = RULES["weighted_mean"](
        make_panel([looks, listens], weights=weights, present=[None] * 2, covers=[None] * 2)
    ).scores
    assert pooled[0, 1] == pytest.approx(0.9 / (0.35 + 0.9))
    assert pooled[1, 1] == pytest.approx(0.1 / (0.75 + 0.1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_of_the_scores_is_kept(dtype):
    scores = softmax(np.random.default_rng(0).normal(size=(B, K)).astype(dtype))
    panel = make_panel([scores] * 2, weights=[1.0, 2.0], present=[None] * 2, covers=[None] * 2)
    assert {rule(panel).scores.dtype for rule in RULES.values()} == {np.dtype(dtype)}


@given(
    arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=st.sampled_from([0, 0.25, 0.5, 1]))
)
def test_few_and_many_best_labels_are_in_the_same_order(scores):
    whole = rank(scores, top_k=40).ids
    for count in (1, 2, 5, 16, 17):
        assert rank(scores, top_k=count).ids.tolist() == whole[:, :count].tolist()


@given(seeds)
def test_divergence_equals_its_definition(seed):
    _, scores, weights, present, _ = random_panel(seed)
    found = divergence(scores, [w * here for w, here in zip(weights, present, strict=True)])
    for b in range(B):
        who = [m for m in range(len(weights)) if present[m, b]]
        shares = scaled([weights[m] for m in who])
        mean = sum(s * scores[m][b] for s, m in zip(shares, who, strict=True))

        def h(p):
            return -sum(x * math.log(x) for x in p if x > 0)

        expected = h(mean) - sum(s * h(scores[m][b]) for s, m in zip(shares, who, strict=True))
        assert found[b] == pytest.approx(expected, abs=1e-9)


def test_divergence_runs_from_agreement_to_ln_of_the_members():
    one, two = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert divergence([one, one], [1.0, 1.0]).tolist() == [0.0]
    assert divergence([one, two], [1.0, 1.0])[0] == pytest.approx(math.log(2))


def test_entropy_of_certainty_is_zero():
    assert entropy(np.array([[1.0, 0.0, 0.0]])).tolist() == [0.0]
