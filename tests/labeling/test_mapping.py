import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidcls_batch.errors import ConfigError
from vidcls_batch.labeling.mapping import head_to_run_labels

RUN = ("abseiling", "riding bike", "surfing water")


@given(st.permutations(RUN))
def test_a_head_in_any_order_finds_the_runs_ids(head: list[str]) -> None:
    logits = np.array([RUN.index(name) for name in head], dtype=float)
    scores = np.full(3, -np.inf)
    scores[head_to_run_labels(head, run_labels=RUN)] = logits
    assert scores.tolist() == [0, 1, 2]


def test_case_and_underscores_do_not_matter() -> None:
    assert head_to_run_labels(["Surfing_Water", "ABSEILING", " riding  bike "], run_labels=RUN).tolist() == [2, 0, 1]


def test_names_that_differ_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        head_to_run_labels(["abseiling", "riding bike", "juggling", "yoga"], run_labels=RUN, member="vm")
    assert "members.vm: the head scores 4 labels, the run's label set has 3" in str(caught.value)
    assert "Only in the label set: 'surfing water'. Only in the head: 'juggling', 'yoga'" in str(caught.value)


def test_long_lists_of_differences_are_cut() -> None:
    with pytest.raises(ConfigError, match="and 395 more"):
        head_to_run_labels([f"label {i}" for i in range(400)], run_labels=RUN)


def test_two_labels_that_read_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match="which read the same"):
        head_to_run_labels(["a_b", "a b"], run_labels=("a b", "c"))
