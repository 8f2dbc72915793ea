import numpy as np
import pytest

from tests.video.clips import HEIGHT, WIDTH, Recipe, draw, encode
from tests.video.odd_clips import clip
from vidcls_batch.types import DecodeQuality, FrameRequest, Sampling
from vidcls_batch.video.decode import decode_in_process
from vidcls_batch.video.quality import dark_ratio, frozen_ratio


def quality(source: bytes, *samplings: Sampling) -> DecodeQuality:
    return decode_in_process(source, FrameRequest(samplings, 64, 64)).report.quality


def test_a_clean_clip_has_nothing_to_report():
    q = quality(clip("h264"), Sampling(8))
    assert (q.frames_requested, q.frames_decoded, q.frames_repeated) == (8, 8, 0)
    assert (q.packet_errors, q.frames_corrupt, q.dark_ratio, q.frozen_ratio) == (0, 0, 0.0, 0.0)
    assert q.frame_pts_s == pytest.approx([5 / 30, 16 / 30, 28 / 30, 39 / 30, 50 / 30, 61 / 30, 73 / 30, 84 / 30])


def test_a_short_clip_repeats_frames_and_says_so():
    q = quality(clip("h264_two_frames"), Sampling(8))
    assert (q.frames_requested, q.frames_decoded, q.frames_repeated) == (8, 2, 6)
    assert q.frozen_ratio == pytest.approx(6 / 7)


def test_two_members_that_want_the_same_frames_share_them():
    q = quality(clip("h264"), Sampling(8), Sampling(8))
    assert (q.frames_requested, q.frames_decoded, q.frames_repeated) == (16, 8, 0)


def test_a_damaged_clip_counts_its_damage():
    q = quality(clip("h264_damaged"), Sampling(32))
    assert q.packet_errors >= 1
    assert q.frames_corrupt >= 1
    assert q.frames_requested == 32


def test_times_count_from_the_start_of_the_file_whatever_its_clock_says():
    late = quality(clip("h264_late_start"), Sampling(4)).frame_pts_s
    assert late == pytest.approx(quality(clip("h264"), Sampling(4)).frame_pts_s)
    assert quality(clip("h264_ts"), Sampling(4)).frame_pts_s == pytest.approx(late)


def test_a_black_clip_is_dark_and_a_still_one_is_frozen(monkeypatch):
    black, still = np.zeros((HEIGHT, WIDTH, 3), np.uint8), draw(5)
    monkeypatch.setattr("tests.video.clips.draw", lambda n, **_: black if n < 45 else still)
    q = quality(encode(Recipe(options={"preset": "veryfast"})), Sampling(10))
    assert q.dark_ratio == 0.5
    assert q.frozen_ratio == pytest.approx(8 / 9)


def frames(*levels: int) -> np.ndarray:
    return np.stack([np.full((64, 64, 3), level, np.uint8) for level in levels])


def test_dark_is_nearly_all_pixels_below_32():
    lit = frames(0, 31, 32, 200)
    lit[0, :8, :8] = 255  # 1.6 % of the picture
    assert dark_ratio(lit) == 0.5
    lit[0, :16, :16] = 255  # 6 %
    assert dark_ratio(lit) == 0.25


def test_frozen_compares_neighbours_within_a_view():
    request = FrameRequest((Sampling(2, views=2), Sampling(1)), 64, 64)
    assert frozen_ratio(request, frames(10, 10, 10, 60, 60)) == 0.5
    assert frozen_ratio(FrameRequest((Sampling(1, views=3),), 64, 64), frames(1, 1, 1)) == 0.0


def test_a_small_moving_thing_is_not_frozen():
    moving = frames(100, 100)
    moving[0, 0:20, 0:20] = 180
    moving[1, 0:20, 20:40] = 180
    assert frozen_ratio(FrameRequest((Sampling(2),), 64, 64), moving) == 0.0
