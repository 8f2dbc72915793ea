"""Data sets of clips: their manifest tells the truth, their broken files are broken."""

from collections import Counter

import av
import pandas as pd
import pytest

from vidcls_batch.errors import ClipError, Status
from vidcls_batch.synthetic.accuracy import accuracy_table
from vidcls_batch.synthetic.benchmark_clip import write_benchmark_clip
from vidcls_batch.synthetic.broken import BROKEN_KINDS, write_broken_file
from vidcls_batch.synthetic.captions import UNSEEN_NAMES, UNSEEN_PAIRS, caption
from vidcls_batch.synthetic.dataset import write_dataset
from vidcls_batch.synthetic.motions import LABELS
from vidcls_batch.synthetic.shapes import COLOURS
from vidcls_batch.types import FrameRequest, Sampling
from vidcls_batch.video.decode import decode_in_process


def test_manifest_has_a_row_with_its_truth_for_each_file(tmp_path):
    rows = pd.read_csv(write_dataset(tmp_path / "clips", num_clips=14, seed=1))
    assert rows.clip_id.is_unique
    assert Counter(rows.true_label) == Counter(LABELS[i % len(LABELS)] for i in range(14))
    for row in rows.itertuples():
        assert row.caption == f"a {row.colour} {row.shape} {row.true_label}"
        assert row.motion_caption == f"a shape {row.true_label}"
        with av.open(row.uri) as container:
            assert len(container.streams.video) == 1


def test_broken_files_come_with_null_truth_and_their_kind(tmp_path):
    path = write_dataset(tmp_path, num_clips=2, seed=1, broken=True, manifest="manifest.parquet")
    rows = pd.read_parquet(path)
    broken = rows[rows.broken.notna()]
    assert set(broken.broken) == set(BROKEN_KINDS)
    assert broken.true_label.isna().all()
    assert rows[rows.broken.isna()].true_label.notna().all()


@pytest.mark.parametrize("kind", BROKEN_KINDS)
def test_a_broken_file_fails_to_decode_as_it_should(kind, tmp_path):
    path = tmp_path / "clip.mp4"
    status = write_broken_file(path, kind=kind)
    if status is Status.FETCH_ERROR:
        assert not path.exists()
        return
    with pytest.raises(ClipError) as caught:
        decode_in_process(path.read_bytes(), FrameRequest((Sampling(4),), height=32, width=32))
    assert caught.value.status is status


def test_an_unknown_kind_of_broken_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="zero_byte"):
        write_broken_file(tmp_path / "clip.mp4", kind="zerobyte")


def test_same_seed_same_files_and_workers_change_nothing(tmp_path):
    write_dataset(tmp_path / "a", num_clips=3, seed=5)
    write_dataset(tmp_path / "b", num_clips=3, seed=5, num_workers=2)
    write_dataset(tmp_path / "c", num_clips=3, seed=6)
    a, b, c = ([p.read_bytes() for p in sorted((tmp_path / f).glob("*.mp4"))] for f in "abc")
    assert a == b
    assert all(x != y for x, y in zip(a, c, strict=True))


def test_seen_and_unseen_pairs_never_meet(tmp_path):
    for pairs in ("seen", "unseen"):
        rows = pd.read_csv(write_dataset(tmp_path / pairs, num_clips=12, seed=2, pairs=pairs))
        assert set(rows.pair) == {pairs}
        shown = set(zip(rows.colour, rows.true_label, strict=True))
        assert shown <= UNSEEN_PAIRS if pairs == "unseen" else not shown & UNSEEN_PAIRS


def test_unseen_names_need_both_their_words():
    assert len(UNSEEN_NAMES) == len(set(UNSEEN_NAMES)) == 2 * len(LABELS)
    per_motion = Counter(label for _, label in UNSEEN_PAIRS)
    per_colour = Counter(colour for colour, _ in UNSEEN_PAIRS)
    assert set(per_motion.values()) == {2}, "one colour per motion: the motion alone would give the name away"
    assert set(per_colour) == set(COLOURS)
    assert max(per_colour.values()) < len(LABELS), "each colour has to occur in training"
    assert caption(label="growing", colour="red") == "a red shape growing"


def test_accuracy_counts_labeled_clips_with_known_truth_only():
    predictions = pd.DataFrame(
        {
            "status": ["ok", "ok", "ok", "decode_error", "ok"],
            "true_label": ["a", "b", "a", "a", None],
            "label": ["a", "b", "b", None, "a"],
            "m_label": ["a", "a", "a", None, "a"],
            "m_topk_labels": [["a"]] * 5,
        }
    )
    table = accuracy_table(predictions).set_index("model")
    assert list(table.index) == ["m", "ensemble"]
    assert table.loc["m", "correct"] == 2
    assert table.loc["ensemble", "accuracy"] == pytest.approx(2 / 3)
    assert set(table.clips) == {3}


def test_accuracy_without_any_known_truth_is_refused():
    nothing = pd.DataFrame({"status": ["timeout"], "true_label": ["a"], "label": [None]})
    with pytest.raises(ValueError, match="true_label"):
        accuracy_table(nothing)


def test_benchmark_clip_is_as_heavy_as_real_ones(tmp_path):
    path = tmp_path / "clip.mp4"
    write_benchmark_clip(path, seed=1, duration_s=2.0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (340, 256, 30)
        assert len(container.streams.audio) == 1
        assert sum(1 for _ in container.decode(stream)) == 60
    megabits = path.stat().st_size * 8 / 2.0 / 1e6
    assert 0.5 < megabits < 2.0
