import pytest
import torch

from vidcls_batch.models.base import combine_views

LOGITS = torch.tensor([[[4.0, 0.0, -1.0], [0.0, 1.0, 0.0]], [[50.0, -60.0, 0.0], [-70.0, 90.0, 1.0]]])


def test_probabilities_are_averaged_by_default() -> None:
    expected = LOGITS.softmax(-1).mean(1)
    torch.testing.assert_close(combine_views(LOGITS).softmax(-1), expected)


def test_logits_are_averaged_when_asked() -> None:
    torch.testing.assert_close(combine_views(LOGITS, "mean_of_logits"), LOGITS.mean(1))


def test_the_two_rules_differ_where_views_disagree() -> None:
    assert not torch.allclose(combine_views(LOGITS).softmax(-1), combine_views(LOGITS, "mean_of_logits").softmax(-1))


def test_one_view_keeps_its_logits() -> None:
    assert torch.equal(combine_views(LOGITS[:, :1]), LOGITS[:, 0])


def test_scores_without_a_view_axis_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \[clips, views, labels\]"):
        combine_views(LOGITS[0])
