"""Ensemble weights are chosen by likelihood; the committed demo checkpoints are as good as docs/demo.md says."""

from pathlib import Path

import numpy as np
import pytest

from vidcls_batch.config import load_config
from vidcls_batch.label_sets import load_label_set
from vidcls_batch.labeling.ensemble import weighted_mean
from vidcls_batch.models.registry import describe_member
from vidcls_batch.synthetic.captions import UNSEEN_NAMES
from vidcls_batch.synthetic.dataset import write_dataset
from vidcls_batch.training.clip_cache import cache_clips
from vidcls_batch.training.evaluation import accuracy, choose_weights, member_probabilities
from vidcls_batch.types import FrameRequest

REPOSITORY = Path(__file__).parents[2]


def test_accuracy_is_the_share_of_right_first_choices():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert accuracy(probabilities, np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_a_member_that_guesses_gets_no_weight():
    truth = np.arange(40) % 4
    sure = np.full((40, 4), 0.05) + 0.8 * np.eye(4)[truth]
    guess = np.random.default_rng(0).dirichlet(np.ones(4), 40)
    assert choose_weights([guess, sure], truth) == (0.0, 1.0)


def test_members_that_are_wrong_in_different_places_share_the_weight():
    truth = np.zeros(40, dtype=np.int64)
    first, second = np.full((40, 2), 0.1), np.full((40, 2), 0.1)
    first[:, 0], second[:, 0] = 0.9, 0.9
    first[:10], second[10:20] = (0.1, 0.9), (0.1, 0.9)
    assert choose_weights([first, second], truth) == (0.5, 0.5)


def test_weights_sum_to_one_and_keep_to_the_grid():
    rng = np.random.default_rng(1)
    scores = [rng.dirichlet(np.ones(3), 30) for _ in range(3)]
    weights = choose_weights(scores, rng.integers(0, 3, 30), steps=5)
    assert sum(weights) == pytest.approx(1.0)
    assert all(round(w * 5) == pytest.approx(w * 5) for w in weights)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's config, labels, and a function that caches fresh clips as its members see them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        config = load_config("configs/demo.yaml")
        labels = load_label_set(config.label_set).labels
        spec = describe_member(config.members[0], labels=labels).input
        request = FrameRequest((spec.sampling,), height=spec.height, width=spec.width)

        def fresh_clips(num_clips, **arguments):
            folder = tmp_path_factory.mktemp("fresh")
            manifest = write_dataset(folder, num_clips=num_clips, **arguments)
            return cache_clips(manifest, request=request, folder=folder)

        yield config, labels, fresh_clips


@pytest.mark.slow
def test_demo_checkpoints_know_motions_they_have_not_seen_and_the_ensemble_is_no_worse(demo):
    config, labels, fresh_clips = demo
    clips = fresh_clips(240, seed=77)
    truth = np.array([labels.index(label) for label in clips.rows.true_label])
    scores = {m.name: member_probabilities(m, clips, labels=labels) for m in config.members}
    reached = {name: accuracy(probabilities, truth) for name, probabilities in scores.items()}
    weights = [config.ensemble.weights.get(name, 1.0) for name in scores]
    ensemble = accuracy(weighted_mean(list(scores.values()), weights), truth)
    assert reached["videomae"] >= 0.85, reached
    assert reached["timesformer"] >= 0.85, reached
    assert ensemble >= 0.92
    # 240 clips tell accuracies apart to about two points.
    assert ensemble >= max(reached.values()) - 0.02, reached


@pytest.mark.slow
def test_demo_xclip_names_pairs_of_words_it_never_met_together(demo):
    config, _, fresh_clips = demo
    clips = fresh_clips(144, seed=78, pairs="unseen")
    xclip = next(m for m in config.members if m.family == "xclip").model_copy(update={"prompts": ("{}",)})
    truth = np.array([UNSEEN_NAMES.index(name) for name in clips.rows.colour_caption])
    assert accuracy(member_probabilities(xclip, clips, labels=UNSEEN_NAMES), truth) >= 0.3, "chance is 0.05"


def test_demo_checkpoints_are_small():
    files = [p for p in (REPOSITORY / "configs" / "demo" / "checkpoints").rglob("*") if p.is_file()]
    assert {p.parent.name for p in files} == {"videomae", "timesformer", "xclip"}
    assert sum(p.stat().st_size for p in files) < 7_000_000
