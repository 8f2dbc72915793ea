import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidcls_batch.config import LabelSetConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.label_sets import built_in_label_sets, load_label_set
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


def test_quotes_brackets_and_hyphens_do_not_matter() -> None:
    run = ("massaging person's head", "petting animal (not cat)", "Pushing [something]", "high-jump")
    head = ["high jump", '"massaging persons head"', "petting animal not cat", "Pushing something"]
    assert head_to_run_labels(head, run_labels=run).tolist() == [3, 0, 1, 2]


def test_names_that_only_punctuation_tells_apart_stay_apart() -> None:
    assert head_to_run_labels(["a-b", "ab"], run_labels=("ab", "a-b")).tolist() == [1, 0]
    with pytest.raises(ConfigError, match="not the same names"):
        head_to_run_labels(["a-b", "A-B"], run_labels=("ab", "a-b"))


@pytest.mark.parametrize("name", built_in_label_sets())
def test_every_built_in_label_set_maps_to_itself_in_any_order(name: str) -> None:
    labels = load_label_set(LabelSetConfig(name=name)).labels
    shouted = [label.upper().replace(" ", "_") for label in reversed(labels)]
    assert head_to_run_labels(shouted, run_labels=labels).tolist() == list(reversed(range(len(labels))))
