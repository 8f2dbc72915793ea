"""Rules over a whole table and votes against crowd-kit and scipy, on random votes with gaps."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidcls_batch.labeling.aggregators import AGGREGATORS, NO_VOTE, aggregate_votes
from vidcls_batch.labeling.ensemble import divergence, entropy, softmax
from vidcls_batch.labeling.rules import RULES, make_panel

seeds = st.integers(0, 2**32 - 1)


def random_votes(seed: int, *, clips: int = 12, members: int = 4, labels: int = 3) -> np.ndarray:
    """Votes [clips, members] around a hidden label, a fifth of them missing; the first clip has none at all."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, (clips, 1))
    votes = np.where(rng.random((clips, members)) < 0.6, truth, rng.integers(0, labels, (clips, members)))
    votes[rng.random((clips, members)) < 0.2] = NO_VOTE
    votes[0], votes[1] = NO_VOTE, np.arange(members) % labels
    return votes


# MACE starts anew ten times for each table: 5 s.
SLOW = {"mace": pytest.mark.slow}


@pytest.mark.parametrize("rule", [pytest.param(r, marks=SLOW.get(r, ())) for r in sorted(AGGREGATORS)])
@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_whole_table_rules_equal_crowd_kit_on_random_votes(rule, seed):
    """Crowd-kit is given names in place of numbers, vote by vote."""
    aggregation = pytest.importorskip("crowdkit.aggregation")
    votes = random_votes(seed)
    rows = [
        {"task": f"clip{c:02d}", "worker": f"m{m}", "label": f"label {votes[c, m]}"}
        for c in range(votes.shape[0])
        for m in range(votes.shape[1])
        if votes[c, m] != NO_VOTE
    ]
    expected = getattr(aggregation, AGGREGATORS[rule])().fit_predict_proba(pd.DataFrame(rows))
    found = aggregate_votes(rule, votes).over(4, rows=slice(0, len(votes)))
    assert not found[0].any()
    assert not found[:, 3].any()
    for name, row in expected.iterrows():
        for label in range(3):
            assert found[int(name[4:]), label] == pytest.approx(row.get(f"label {label}", 0.0), abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_majority_equals_crowd_kits_shares(seed):
    aggregation = pytest.importorskip("crowdkit.aggregation")
    votes = random_votes(seed)[1:]
    votes[:, 0] = np.maximum(votes[:, 0], 0)
    scores = [softmax(np.where(np.arange(3) == votes[:, [m]], 3.0, 0.0)) for m in range(4)]
    panel = make_panel(scores, weights=[1.0] * 4, present=[votes[:, m] != NO_VOTE for m in range(4)], covers=[None] * 4)
    clips, members = np.nonzero(votes != NO_VOTE)
    table = pd.DataFrame({"task": clips, "worker": members, "label": votes[clips, members]})
    shares = aggregation.MajorityVote().fit_predict_proba(table).reindex(columns=range(3), fill_value=0)
    assert RULES["majority"](panel).scores == pytest.approx(shares.to_numpy())


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_weighted_vote_equals_crowd_kits_shares_by_skill(seed):
    aggregation = pytest.importorskip("crowdkit.aggregation")
    rng = np.random.default_rng(seed)
    skills = pd.Series(rng.uniform(0.2, 2, 4))
    votes = random_votes(seed)[1:]
    votes[:, 0] = np.maximum(votes[:, 0], 0)
    scores = [softmax(np.where(np.arange(3) == votes[:, [m]], 3.0, 0.0)) for m in range(4)]
    panel = make_panel(
        scores, weights=skills.tolist(), present=[votes[:, m] != NO_VOTE for m in range(4)], covers=[None] * 4
    )
    clips, members = np.nonzero(votes != NO_VOTE)
    table = pd.DataFrame({"task": clips, "worker": members, "label": votes[clips, members]})
    shares = aggregation.MajorityVote().fit_predict_proba(table, skills).reindex(columns=range(3), fill_value=0)
    assert RULES["weighted_vote"](panel).scores == pytest.approx(shares.to_numpy())


@given(seeds)
def test_entropy_and_divergence_equal_scipys(seed):
    distance = pytest.importorskip("scipy.spatial.distance")
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seed)
    one, two = (softmax(rng.normal(size=(5, 6)) * 4) for _ in range(2))
    assert entropy(one) == pytest.approx(stats.entropy(one, axis=1))
    assert divergence([one, two], [1.0, 1.0]) == pytest.approx(distance.jensenshannon(one, two, axis=1) ** 2, abs=1e-9)
