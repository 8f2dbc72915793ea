"""Members in several classifiers: the rows are those of one classifier that holds all of them, to the last bit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_classify import BAD, HEAD, LABELS, WITH_SOUND, BrightnessMember, LoudnessMember, block, settings, sounding

from vidcls_batch.labeling.cascade import Cascade
from vidcls_batch.labeling.labeler import LabelingSettings, MemberEvidence
from vidcls_batch.models.base import Scores, Sound
from vidcls_batch.schema import MemberColumns
from vidcls_batch.stages import classify
from vidcls_batch.stages.classify import BlockClassifier
from vidcls_batch.stages.host_copies import HostCopies
from vidcls_batch.stages.member_groups import (
    EvidenceWidths,
    GroupEvidence,
    evidence_in,
    member_groups,
    with_evidence,
)

NAMES = ("m", "n", "o")
LEVELS = [250, 0, BAD, 128, 255, 1, 96, 33]
TIMES = ["infer_ms"]


class OtherMember(BrightnessMember):
    """Says something else of each clip than the first member, in numbers that float16 would not hold."""

    def score(self, frames: torch.Tensor, sound: Sound | None = None) -> Scores:
        scores = super().score(frames, sound)
        return replace(scores, logits=scores.logits.roll(1, dims=2) / 3 + 0.1)


@pytest.fixture
def chain(monkeypatch) -> Callable[..., Callable[[pa.Table], pa.Table]]:
    """One classifier for each of `groups`, in a row; `failures[name]` is how a member fails. No groups: one for all."""

    def make(
        groups: Sequence[Sequence[str]] = (),
        *,
        failures: Mapping[str, str] = MappingProxyType({}),
        kinds: Mapping[str, type] = MappingProxyType({}),
        **changes: object,
    ) -> Callable[[pa.Table], pa.Table]:
        classes = {"m": BrightnessMember, "n": OtherMember, "o": BrightnessMember, **kinds}
        members = {name: classes[name](*filter(None, [failures.get(name)])) for name in NAMES}
        make.members = members
        monkeypatch.setattr(classify, "load_member", lambda config, **_: members[config.name])
        asked = settings(
            **{
                "members": tuple(SimpleNamespace(name=name) for name in NAMES),
                "columns": tuple(MemberColumns(name, num_logits=3, embedding_dim=2) for name in NAMES),
                "labeling": LabelingSettings(labels=LABELS, maps=(HEAD,) * 3, weights=(1.0, 2.0, 0.5), top_k=2),
                "widths": (EvidenceWidths(3, embedding=2),) * 3,
            }
            | changes
        )
        workers = [asked.in_group(group) for group in member_groups(NAMES, groups)] or [asked]
        classifiers = [BlockClassifier(worker) for worker in workers]

        def through(decoded: pa.Table) -> pa.Table:
            for classifier in classifiers:
                decoded = classifier(decoded)
            return decoded

        return through

    return make


GROUPINGS = [[["m"], ["n", "o"]], [["o", "m"], ["n"]], [["n"], ["o"], ["m"]]]


@pytest.mark.parametrize("groups", GROUPINGS)
def test_rows_of_groups_are_those_of_one_classifier_to_the_last_bit(chain, groups):
    decoded = block(LEVELS, failed=(4,))
    expected = chain()(decoded)
    assert chain(groups)(decoded).drop_columns(TIMES).equals(expected.drop_columns(TIMES))


@pytest.mark.parametrize("groups", GROUPINGS)
@pytest.mark.parametrize("failing", NAMES)
@pytest.mark.parametrize(("failure", "errors"), [("raises", "fail"), ("raises", "missing"), ("silent", "fail")])
def test_a_clip_that_a_member_of_any_group_fails_on_hurts_no_other(chain, groups, failing, failure, errors):
    changes = {"failures": {failing: failure}, "member_errors": errors}
    decoded = block(LEVELS, failed=(4,))
    expected = chain(**changes)(decoded)
    found = chain(groups, **changes)(decoded)
    assert found.drop_columns(TIMES).equals(expected.drop_columns(TIMES))
    hurt = "model_error" if (failure, errors) == ("raises", "fail") else "ok"
    assert found["status"].to_pylist() == ["ok", "ok", hurt, "ok", "timeout", "ok", "ok", "ok"]


def test_a_clip_that_an_earlier_group_failed_on_is_not_shown_to_the_next(chain):
    chain([["m"], ["n", "o"]], failures={"m": "raises"})(block(LEVELS))
    assert chain.members["n"].batches == [len(LEVELS) - 1]


def test_a_block_of_failures_goes_through_all_groups_without_a_model(chain):
    rows = chain([["m"], ["n", "o"]])(block([1, 2], failed=(0, 1)))
    assert rows["status"].to_pylist() == ["timeout"] * 2
    assert rows.schema == chain()(block([1, 2], failed=(0, 1))).schema
    assert all(member.batches == [] for member in chain.members.values())


@pytest.mark.parametrize("groups", [[["m"], ["n", "o"]], [["m", "o"], ["n"]], [["m"], ["n"], ["o"]]])
@pytest.mark.parametrize("audit_share", [0.0, 0.4])
def test_a_cascade_over_groups_asks_about_the_same_clips(chain, groups, audit_share):
    cascade = Cascade(first=(0,), margin=0.5, audit_share=audit_share)
    decoded = block(LEVELS, failed=(4,))
    expected = chain(cascade=cascade)(decoded)
    asked = [sum(chain.members[name].batches) for name in NAMES]
    found = chain(groups, cascade=cascade)(decoded)
    assert found.drop_columns(TIMES).equals(expected.drop_columns(TIMES))
    assert [sum(chain.members[name].batches) for name in NAMES] == asked
    assert 0 < asked[1] < asked[0] == len(LEVELS) - 1


def test_a_block_in_parts_gets_the_same_rows_from_groups(chain, monkeypatch):
    expected = chain()(block(LEVELS))
    monkeypatch.setattr(HostCopies, "parts", lambda _, n: [slice(i, i + 3) for i in range(0, n, 3)])
    found = chain([["m"], ["n", "o"]])(block(LEVELS))
    assert chain.members["o"].batches == [3, 3, 2]
    assert found.drop_columns(TIMES).equals(expected.drop_columns(TIMES))


def test_the_time_of_all_groups_is_the_clips_time(chain):
    rows = chain([["m"], ["n", "o"]])(block(LEVELS, failed=(4,)))["infer_ms"].to_pylist()
    assert rows[4] is None
    assert all(ms > 0 for index, ms in enumerate(rows) if index != 4)


@pytest.mark.parametrize("groups", [[["m", "o"], ["n"]], [["n"], ["m", "o"]]])
def test_sound_reaches_the_members_of_each_group(chain, groups):
    changes = {
        "kinds": {"n": LoudnessMember},
        "request": WITH_SOUND,
        "columns": tuple(MemberColumns(name, num_logits=3) for name in NAMES),
        "widths": (EvidenceWidths(3),) * 3,
    }
    heard = sounding([250, 0, 128, 0], [0, 250, None, 128])
    expected = chain(**changes)(heard)
    assert expected["n_label"].to_pylist() == ["dark", "bright", None, "grey"]
    assert chain(groups, **changes)(heard).drop_columns(TIMES).equals(expected.drop_columns(TIMES))


def test_evidence_crosses_as_the_numbers_it_is():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(3, 5)).astype(np.float32)
    context = generator.normal(size=(3, 7)).astype(np.float32)
    present = np.array([True, False, True])
    scored = GroupEvidence(np.array([0, 2, 3]), {1: MemberEvidence(logits, context=context, present=present)})
    widths = (EvidenceWidths(4), EvidenceWidths(5, context=7))
    decoded = block([1, 2, 3, 4])
    carried = with_evidence(decoded, [scored], held=(1,), widths=widths)
    assert carried.select(decoded.column_names).equals(decoded)
    (found,) = evidence_in(pa.concat_tables([carried, carried]).slice(4), known=(1,), widths=widths).values()
    chosen = found.part(scored.indices)
    assert np.array_equal(chosen.logits, logits)
    assert np.array_equal(chosen.context, context)
    assert np.array_equal(chosen.present, present)
    assert found.embedding is None


def test_a_member_without_a_mask_has_none_after_crossing_either():
    scored = GroupEvidence(np.array([0]), {0: MemberEvidence(np.ones((1, 2), np.float32))})
    carried = with_evidence(block([1, 2]), [scored], held=(0,), widths=(EvidenceWidths(2),))
    assert evidence_in(carried, known=(0,), widths=(EvidenceWidths(2),))[0].present is None
