import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidcls_batch.config import LabelSetConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.label_sets import LabelSet, built_in_label_sets, load_label_set, plain_label_set
from vidcls_batch.labeling.coverage import check_coverage
from vidcls_batch.labeling.ensemble import softmax
from vidcls_batch.labeling.mapping import map_labels
from vidcls_batch.labeling.mapping_file import load_mapping, nearest_labels, write_proposal

RUN = ("abseiling", "riding bike", "surfing water")


def labels(*names: str) -> LabelSet:
    return plain_label_set("run", names)


def run_ids(head: list[str], run: LabelSet) -> list[int]:
    """The one label of each output, in the outputs' order; fails for a head that is not one-to-one."""
    found = map_labels(head, label_set=run)
    assert found.head_ids.tolist() == list(range(len(head)))
    assert found.shares.tolist() == [1.0] * len(head)
    return found.run_ids.tolist()


@given(st.permutations(RUN))
def test_a_head_in_any_order_finds_the_runs_ids(head: list[str]) -> None:
    logits = np.array([[RUN.index(name) for name in head]], dtype=float)
    scores = map_labels(head, label_set=labels(*RUN)).probabilities(logits)
    assert np.allclose(scores, softmax(np.array([[0.0, 1.0, 2.0]])))


def test_case_and_underscores_do_not_matter() -> None:
    assert run_ids(["Surfing_Water", "ABSEILING", " riding  bike "], labels(*RUN)) == [2, 0, 1]


def test_a_head_that_knows_no_label_is_refused_with_both_lists() -> None:
    with pytest.raises(ConfigError) as caught:
        map_labels(["juggling", "yoga"], label_set=labels(*RUN), member="vm")
    assert "members.vm: none of the 2 labels its head scores is one of the 3" in str(caught.value)
    assert "'abseiling', 'riding bike', 'surfing water'" in str(caught.value)
    assert "'juggling', 'yoga'" in str(caught.value)


def test_long_lists_of_names_are_cut() -> None:
    with pytest.raises(ConfigError, match="and 395 more"):
        map_labels([f"label {i}" for i in range(400)], label_set=labels(*RUN))


def test_quotes_brackets_and_hyphens_do_not_matter() -> None:
    run = labels("massaging person's head", "petting animal (not cat)", "Pushing [something]", "high-jump")
    head = ["high jump", '"massaging persons head"', "petting animal not cat", "Pushing something"]
    assert run_ids(head, run) == [3, 0, 1, 2]


def test_names_that_only_punctuation_tells_apart_stay_apart() -> None:
    assert run_ids(["a-b", "ab"], labels("ab", "a-b")) == [1, 0]
    found = map_labels(["a-b", "A-B"], label_set=labels("ab", "a-b"))
    assert (found.head_ids.tolist(), found.run_ids.tolist()) == ([0, 1], [1, 0])
    ambiguous = map_labels(["x", "a b", "a_b"], label_set=labels("A B", "x"))
    assert ambiguous.head_ids.tolist() == [0]


@pytest.mark.parametrize("name", built_in_label_sets())
def test_every_built_in_label_set_maps_to_itself_in_any_order(name: str) -> None:
    run = load_label_set(LabelSetConfig(name=name))
    shouted = [label.upper().replace(" ", "_") for label in reversed(run.labels)]
    assert run_ids(shouted, run) == list(reversed(range(len(run.labels))))


def test_an_alias_stands_for_its_label(tmp_path) -> None:
    (tmp_path / "l.yaml").write_text("labels: [{name: cycling, aliases: [riding bike]}, {name: rowing}]")
    run = load_label_set(LabelSetConfig(file=str(tmp_path / "l.yaml")))
    assert run_ids(["rowing", "Riding_Bike"], run) == [1, 0]


@given(st.integers(0, 2**32 - 1))
def test_shares_move_probability_as_a_plain_loop_does(seed: int) -> None:
    head = ["bike", "car", "guitar", "yoga"]
    targets = {"bike": {"ride": 1.0}, "car": {"ride": 1.0}, "guitar": {"play": 0.25, "sing": 0.75}, "yoga": {}}
    found = map_labels(head, label_set=labels("play", "ride", "sing", "swim"), targets=targets)
    logits = np.random.default_rng(seed).normal(size=(3, 4)) * 5
    for row, scores in zip(logits, found.probabilities(logits), strict=True):
        p = np.exp(row) / np.exp(row).sum()
        kept = p[0] + p[1] + p[2]
        assert scores == pytest.approx([p[2] * 0.25 / kept, (p[0] + p[1]) / kept, p[2] * 0.75 / kept, 0])
    assert found.covers.tolist() == [True, True, True, False]


def test_a_clip_of_an_unmapped_class_still_gets_probabilities() -> None:
    found = map_labels(["yoga", "ride", "swim"], label_set=labels("ride", "swim"))
    scores = found.probabilities(np.array([[300.0, 1.0, 0.0]], np.float32))
    assert scores[0].tolist() == pytest.approx(softmax(np.array([1.0, 0.0])).tolist())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"bikee": {"ride": 1.0}}, "'bikee' is no output of the head. Did you mean 'bike'"),
        ({"bike": {"rides": 1.0}}, "'rides' is no label of the run. Did you mean 'ride'"),
        ({"bike": {"ride": 0.5, "play": 0.4}}, "sum to 0.9, not 1"),
        ({"bike": {"ride": 1.5, "play": -0.5}}, r"share of 'ride' is 1.5, not in \(0, 1\]"),
    ],
)
def test_targets_that_are_none_are_refused(targets: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        map_labels(["bike", "guitar"], label_set=labels("ride", "play"), targets=targets)


def test_a_proposal_is_refused_until_someone_has_reviewed_it(tmp_path) -> None:
    path = tmp_path / "map.yaml"
    head, run = np.array([[1.0, 0], [0, 2], [1, 1]]), np.array([[3.0, 0.1], [0, 1]])
    proposals = nearest_labels(head, run, run_labels=["ride: fast", "play"], unmapped_below=0.9)
    assert [name for name, _ in proposals] == ["ride: fast", "play", "unmapped"]
    write_proposal(path, head_labels=["bike", "#guitar", "yoga"], proposals=proposals)
    with pytest.raises(ConfigError, match="nobody has reviewed"):
        load_mapping(path)
    path.write_text(path.read_text().replace("reviewed: false", "reviewed: true"))
    found = load_mapping(path)
    assert found.targets == {"bike": {"ride: fast": 1.0}, "#guitar": {"play": 1.0}, "yoga": {}}
    assert not found.match_rest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a, b]", "needs the key `map`"),
        ("map: {a: b}\nresst: match", "unknown key 'resst'"),
        ("map: {a: b}\nrest: drop", "rest is 'drop'"),
        ("map: {a: {b: lots}}", "share of 'b' in 'a' is 'lots'"),
        ("map: {a: []}", "maps to \\[\\]"),
        ("map: [", "Cannot read the mapping"),
    ],
)
def test_mapping_files_that_are_none_are_refused(tmp_path, text: str, message: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_mapping(tmp_path / "map.yaml")


def test_coverage_names_what_nobody_can_predict() -> None:
    run = labels("ride", "play", "sing")
    maps = {"a": map_labels(["ride", "yoga"], label_set=run), "b": map_labels(["ride", "play"], label_set=run)}
    coverage = check_coverage(run.labels, maps)
    assert coverage.unpredictable == ("sing",)
    assert coverage.members_of("ride") == ("a", "b")
    assert coverage.members_of("play") == ("b",)
    lines = coverage.lines()
    assert lines[0].startswith("Member a can predict 1 of 3 labels, with 1 of its 2 outputs; not 'play', 'sing'")
    assert lines[-1] == "Warning: no member can predict 'sing': no clip will get these labels"


def test_a_whole_head_needs_no_line() -> None:
    run = labels("ride", "play")
    assert check_coverage(run.labels, {"a": map_labels(["play", "ride"], label_set=run)}).lines() == []
