import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from vidcls_batch.label_sets import plain_label_set
from vidcls_batch.labeling.cascade import Cascade
from vidcls_batch.labeling.labeler import LabelingSettings
from vidcls_batch.labeling.mapping import map_labels
from vidcls_batch.models.base import Scores, Sound
from vidcls_batch.schema import DECODED, ROUTE, MemberColumns, result_schema
from vidcls_batch.stages import classify
from vidcls_batch.stages.classify import BlockClassifier, ClassifySettings, DeviceLostError
from vidcls_batch.stages.decode import FRAMES, with_sound
from vidcls_batch.stages.host_copies import HostCopies
from vidcls_batch.storage import StorageOptions
from vidcls_batch.types import FrameRequest, Sampling, SoundWindow

SAMPLING = Sampling(num_frames=2)
REQUEST = FrameRequest(samplings=(SAMPLING,), height=4, width=4)
LABELS = ("dark", "grey", "bright")
HEAD = map_labels(("bright", "dark", "grey"), label_set=plain_label_set("levels", LABELS))  # another order
BAD = 13  # a clip of this grey level makes the member fail


class BrightnessMember:
    """Scores a clip by its mean grey level; fails as told on clips of level BAD."""

    labels = ("bright", "dark", "grey")  # another order than the run's
    input = SimpleNamespace(sampling=SAMPLING)
    sound = None
    name = "m"

    def __init__(self, failure: str = "") -> None:
        self.failure = failure
        self.batches: list[int] = []

    def score(self, frames: torch.Tensor, sound: Sound | None = None) -> Scores:
        self.batches.append(len(frames))
        level = frames.float().mean(dim=(1, 2, 3, 4))
        bad = (level - BAD).abs() < 0.5
        if bad.any() and self.failure == "raises":
            raise RuntimeError("shape mismatch in layer 3")
        if self.failure == "memory" and len(frames) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        logits = torch.stack([level / 64, 2 - level / 64, 3 - (level - 128).abs() / 32], dim=1)
        if self.failure == "nan":
            logits[bad] = float("nan")
        present = None
        if self.failure == "silent":
            present = ~bad[:, None]
            logits[bad] = float("nan")
        return Scores(logits=logits[:, None], embeddings=level[:, None, None].repeat(1, 1, 2), present=present)


def settings(**changes: object) -> ClassifySettings:
    given: dict[str, object] = {
        "members": (SimpleNamespace(name="m"),),
        "columns": (MemberColumns("m", num_logits=3, embedding_dim=2),),
        "labeling": LabelingSettings(labels=LABELS, maps=(HEAD,), weights=(1.0,), top_k=2),
        "request": REQUEST,
        "storage": StorageOptions(),
        "device": "cpu",
        "num_threads": 1,
    }
    return ClassifySettings(**(given | changes))


def block(levels: list[int], *, failed: tuple[int, ...] = ()) -> pa.Table:
    frames = np.zeros((len(levels), *REQUEST.frames_shape), np.uint8)
    rows = []
    for i, level in enumerate(levels):
        frames[i] = level
        status = "timeout" if i in failed else "ok"
        rows.append({"unit": 0, "clip_id": f"clip{i}", "status": status, "attempts": 1})
    decoded = pa.Table.from_pylist(rows, schema=pa.schema([*ROUTE, *DECODED]))
    return decoded.append_column(FRAMES, pa.FixedShapeTensorArray.from_numpy_ndarray(frames))


@pytest.fixture
def classifier(monkeypatch):
    def make(failure: str = "", **changes: object) -> tuple[BlockClassifier, BrightnessMember]:
        member = BrightnessMember(failure)
        monkeypatch.setattr(classify, "load_member", lambda *_, **__: member)
        return BlockClassifier(settings(**changes)), member

    return make


def test_each_row_gets_the_label_of_its_own_frames_in_the_runs_label_ids(classifier):
    score, _ = classifier()
    rows = score(block([250, 0, 128])).to_pylist()
    assert [r["label"] for r in rows] == ["bright", "dark", "grey"]
    assert [r["label_id"] for r in rows] == [2, 0, 1]
    assert [r["clip_id"] for r in rows] == ["clip0", "clip1", "clip2"]
    assert rows[0]["m_label"] == "bright"
    assert rows[0]["topk_labels"][0] == "bright"
    assert len(rows[0]["topk_scores"]) == 2
    assert rows[0]["agreement"] == 1.0


def test_result_has_the_runs_schema_with_optional_evidence(classifier):
    score, _ = classifier()
    table = score(block([250, 0]))
    assert table.schema == result_schema(settings().columns)
    assert table["m_embedding"].to_pylist()[0] == [250.0, 250.0]
    assert len(table["m_logits"].to_pylist()[0]) == 3


def test_failed_clips_are_never_scored_and_keep_their_status(classifier):
    score, member = classifier()
    rows = score(block([250, 0, 128], failed=(1,))).to_pylist()
    assert member.batches == [2]
    assert [r["status"] for r in rows] == ["ok", "timeout", "ok"]
    assert rows[1]["label"] is None
    assert [r["label"] for r in rows] == ["bright", None, "grey"]


def test_block_of_failures_only_needs_no_model(classifier):
    score, member = classifier()
    assert score(block([1, 2], failed=(0, 1)))["status"].to_pylist() == ["timeout"] * 2
    assert member.batches == []


@pytest.mark.parametrize("failure", ["raises", "nan"])
def test_clip_whose_classification_fails_becomes_model_error_and_the_others_are_labeled(classifier, failure):
    score, _ = classifier(failure)
    levels = [250, 0, BAD, 128, 255, 1, 2]
    rows = score(block(levels)).to_pylist()
    assert [r["status"] for r in rows] == ["ok", "ok", "model_error", "ok", "ok", "ok", "ok"]
    bad = rows[2]
    assert (bad["error_stage"], bad["error_code"]) == ("classify", "member_raised")
    assert ("layer 3" in bad["error_message"]) or ("not finite" in bad["error_message"])
    assert bad["label"] is None
    assert bad["m_label"] is None
    assert [r["label"] for r in rows if r["status"] == "ok"] == ["bright", "dark", "grey", "bright", "dark", "dark"]


@pytest.fixture
def pair(monkeypatch):
    """A classifier of two members, the second failing as told on clips of level BAD."""

    def make(failure: str, missing: str = "skip", **changes: object) -> BlockClassifier:
        members = [BrightnessMember(), BrightnessMember(failure)]
        monkeypatch.setattr(classify, "load_member", lambda *_, **__: members.pop(0))
        labeling = LabelingSettings(labels=LABELS, maps=(HEAD, HEAD), weights=(1.0, 1.0), top_k=2, missing=missing)
        columns = (MemberColumns("m", num_logits=3, embedding_dim=2), MemberColumns("n", num_logits=3, embedding_dim=2))
        names = (SimpleNamespace(name="m"), SimpleNamespace(name="n"))
        return BlockClassifier(settings(members=names, columns=columns, labeling=labeling, **changes))

    return make


def test_a_member_without_a_score_of_a_clip_is_left_out_there(pair):
    rows = pair("silent")(block([250, BAD])).to_pylist()
    assert [r["status"] for r in rows] == ["ok", "ok"]
    assert rows[0]["n_label"] == "bright"
    assert [rows[1][c] for c in ("n_label", "n_score", "n_topk_labels", "n_logits", "n_embedding")] == [None] * 5
    assert rows[1]["label"] == rows[1]["m_label"] == "dark"
    assert rows[1]["score"] == pytest.approx(rows[1]["m_score"])
    assert rows[1]["agreement"] == 1.0
    assert rows[1]["divergence"] == 0.0


def test_missing_as_no_idea_lowers_the_score_and_keeps_the_columns_empty(pair):
    rows = pair("silent", missing="uniform")(block([250, BAD])).to_pylist()
    assert rows[1]["n_label"] is None
    assert rows[1]["score"] == pytest.approx((rows[1]["m_score"] + 1 / 3) / 2, abs=1e-6)


def test_missing_can_be_a_failure(pair):
    rows = pair("silent", missing="fail")(block([250, BAD])).to_pylist()
    assert [r["status"] for r in rows] == ["ok", "model_error"]
    assert (rows[1]["error_code"], rows[1]["label"]) == ("no_score", None)
    assert "no score of n" in rows[1]["error_message"]


def test_clip_that_no_member_has_a_score_of_is_a_model_error(classifier):
    score, _ = classifier("silent")
    rows = score(block([250, BAD])).to_pylist()
    assert [r["status"] for r in rows] == ["ok", "model_error"]
    assert rows[1]["error_code"] == "no_score"


@pytest.mark.parametrize("failure", ["raises", "nan"])
def test_a_member_that_fails_on_a_clip_can_be_missing_instead(pair, failure):
    rows = pair(failure, member_errors="missing")(block([250, BAD, 0])).to_pylist()
    assert [r["status"] for r in rows] == ["ok"] * 3
    assert [r["n_label"] for r in rows] == ["bright", None, "dark"]
    assert [r["label"] for r in rows] == ["bright", "dark", "dark"]


def test_out_of_memory_halves_the_batch_and_remembers(classifier):
    score, member = classifier("memory")
    assert set(score(block([250] * 8))["status"].to_pylist()) == {"ok"}
    first = list(member.batches)
    score(block([250] * 8))
    assert max(first) == 8
    assert max(member.batches[len(first) :]) == 2


def test_lost_device_is_not_blamed_on_a_clip(classifier, monkeypatch):
    score, _ = classifier("raises", device="cuda")
    monkeypatch.setattr(HostCopies, "start", lambda _, frames: lambda: torch.from_numpy(frames.copy()))

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(DeviceLostError, match="cuda is lost"):
        score(block([BAD]))


def test_a_block_in_parts_gets_the_same_rows_and_a_bad_clip_hurts_no_part(classifier, monkeypatch):
    levels = [250, 0, BAD, 128, 255, 1, 2]
    whole, _ = classifier("raises")
    expected = whole(block(levels, failed=(4,)))
    parted, member = classifier("raises")
    monkeypatch.setattr(HostCopies, "parts", lambda _, n: [slice(i, i + 2) for i in range(0, n, 2)])
    found = parted(block(levels, failed=(4,)))
    assert max(member.batches) == 2
    assert found.drop_columns(["infer_ms"]).equals(expected.drop_columns(["infer_ms"]))


def test_a_classifier_tells_how_much_of_its_time_it_scores(classifier):
    score, _ = classifier()
    assert score.usage().alive_s == 0
    score(block([250, 0]))
    first = score.usage()
    assert 0 < first.scoring_s <= first.alive_s
    time.sleep(0.05)
    later = score.usage()
    assert later.scoring_s == first.scoring_s
    assert later.alive_s >= first.alive_s + 0.05


def test_threads_are_set_from_the_settings(classifier):
    classifier(num_threads=1)
    assert torch.get_num_threads() == 1


def test_module_needs_no_ray():
    assert "import ray" not in Path(classify.__file__).read_text()


def test_a_cascade_asks_the_second_member_about_unsure_clips_only(pair):
    classifier = pair("", cascade=Cascade(first=(0,), margin=0.5, audit_share=0.0))
    rows = classifier(block([250, 0, 100])).to_pylist()
    unsure = [r["m_topk_scores"][0] - r["m_topk_scores"][1] < 0.5 for r in rows]
    assert True in unsure
    assert False in unsure
    assert [r["cascade"] for r in rows] == ["all" if u else "first" for u in unsure]
    assert [r["n_label"] is not None for r in rows] == unsure
    assert [r["n_logits"] is not None for r in rows] == unsure
    asked, spared = (max(r["infer_ms"] for r in rows if (r["cascade"] == route)) for route in ("all", "first"))
    assert asked > spared


OTHER, HEARD = SoundWindow(8, 5), SoundWindow(4, 3)
WITH_SOUND = FrameRequest(samplings=(SAMPLING,), height=4, width=4, sounds=(OTHER, HEARD))


class LoudnessMember:
    """Scores a clip by how loud it is within HEARD; sees nothing, has no score of a clip without sound."""

    labels = ("bright", "dark", "grey")
    input = None
    sound = HEARD
    name = "m"

    def score(self, frames: None, sound: Sound) -> Scores:
        assert frames is None
        assert (sound.samples.shape[1], sound.sample_rate) == (3, 4)
        loudness = sound.samples.mean(dim=1)
        logits = torch.stack([loudness / 64, 2 - loudness / 64, 3 - (loudness - 128).abs() / 32], dim=1)
        if (loudness == BAD).any():
            raise RuntimeError("not that loud")
        return Scores(logits=logits[:, None], present=(sound.lengths > 0)[:, None])


def sounding(levels: list[int], loudness: list[int | None]) -> pa.Table:
    """Clips of these grey levels that sound so loud; None: without sound."""
    samples = np.full((len(levels), WITH_SOUND.num_samples), -1.0, np.float32)
    lengths = np.full((len(levels), 2), 2, np.int32)
    for row, length, loud in zip(samples, lengths, loudness, strict=True):
        row[WITH_SOUND.samples_of(HEARD)] = loud or 0
        length[1] = 0 if loud is None else 3
    return with_sound(block(levels), samples, lengths)


@pytest.fixture
def eye_and_ear(monkeypatch):
    def make(label_weights: tuple[tuple[float, ...], ...] | None = None, **changes: object) -> BlockClassifier:
        members = [BrightnessMember(), LoudnessMember()]
        monkeypatch.setattr(classify, "load_member", lambda *_, **__: members.pop(0))
        labeling = LabelingSettings(
            labels=LABELS, maps=(HEAD, HEAD), weights=(1.0, 1.0), label_weights=label_weights, top_k=2
        )
        columns = (MemberColumns("m", num_logits=3, embedding_dim=2), MemberColumns("n", num_logits=3))
        names = (SimpleNamespace(name="m"), SimpleNamespace(name="n"))
        return BlockClassifier(
            settings(members=names, columns=columns, labeling=labeling, request=WITH_SOUND, **changes)
        )

    return make


def test_a_member_that_hears_scores_each_clip_by_its_own_sound(eye_and_ear):
    rows = eye_and_ear()(sounding([250, 0, 128, 0], [0, 250, None, 128])).to_pylist()
    assert [r["status"] for r in rows] == ["ok"] * 4
    assert [r["m_label"] for r in rows] == ["bright", "dark", "grey", "dark"]
    assert [r["n_label"] for r in rows] == ["dark", "bright", None, "grey"]
    assert rows[2]["label"] == "grey"


def test_a_clip_whose_sound_fails_a_member_is_found_among_the_others(eye_and_ear):
    rows = eye_and_ear()(sounding([250, 0, 128, 0], [0, BAD, 128, 250])).to_pylist()
    assert [r["status"] for r in rows] == ["ok", "model_error", "ok", "ok"]
    assert [r["n_label"] for r in rows] == ["dark", None, "grey", "bright"]


def test_a_cascade_hands_on_the_sound_of_the_clips_it_asks_about(eye_and_ear):
    score = eye_and_ear(cascade=Cascade(first=(0,), margin=0.5, audit_share=0.0))
    rows = score(sounding([250, 0, 100, 100], [0, 0, 250, None])).to_pylist()
    assert [r["cascade"] for r in rows] == ["first", "first", "all", "all"]
    assert [r["n_label"] for r in rows] == [None, None, "bright", None]
    assert rows[3]["label"] == rows[3]["m_label"]


def test_a_cascade_whose_first_member_hears_asks_the_others_about_clips_without_sound(eye_and_ear):
    score = eye_and_ear(cascade=Cascade(first=(1,), margin=0.5, audit_share=0.0))
    rows = score(sounding([250, 250], [0, None])).to_pylist()
    assert [r["cascade"] for r in rows] == ["first", "all"]
    assert [r["m_label"] for r in rows] == [None, "bright"]
    assert [r["label"] for r in rows] == ["dark", "bright"]


def test_weights_per_label_say_who_is_listened_to_for_what(eye_and_ear):
    """Late fusion: the clip looks bright and sounds dark."""
    clips = sounding([250, 250], [0, None])
    by_eye = eye_and_ear(label_weights=((1.0, 1.0, 1.0), (0.05, 0.05, 0.05)))(clips).to_pylist()
    by_ear = eye_and_ear(label_weights=((0.05, 1.0, 0.05), (1.0, 0.05, 1.0)))(clips).to_pylist()
    assert [r["label"] for r in by_eye] == ["bright", "bright"]
    assert [r["label"] for r in by_ear] == ["dark", "bright"]  # without sound its weights count for nothing
