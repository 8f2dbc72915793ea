import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidcls_batch.types import FrameRequest, Sampling
from vidcls_batch.video.sampling import crop_of_slots, frame_range, repeated_slots, slot_indices, view_starts


def times(count: int, fps: float = 30.0) -> np.ndarray:
    return np.arange(count) / fps


def request(*samplings: Sampling) -> FrameRequest:
    return FrameRequest(samplings, height=8, width=8)


def indices(sampling: Sampling, count: int, *, fps: float = 30.0, start_s=None, end_s=None) -> list[int]:
    return slot_indices(request(sampling), pts_s=times(count, fps), start_s=start_s, end_s=end_s).tolist()


@pytest.mark.parametrize(
    ("sampling", "count", "expected"),
    [
        (Sampling(8), 80, [5, 15, 25, 35, 45, 55, 65, 75]),
        (Sampling(4), 10, [1, 3, 6, 8]),
        (Sampling(4), 2, [0, 0, 1, 1]),
        (Sampling(4), 1, [0, 0, 0, 0]),
        (Sampling(2, views=2), 40, [5, 25, 15, 35]),
        (Sampling(4, "stride", stride=2), 20, [6, 8, 10, 12]),
        (Sampling(4, "stride", stride=2, views=3), 20, [0, 2, 4, 6, 6, 8, 10, 12, 13, 15, 17, 19]),
        (Sampling(4, "stride", stride=4), 6, [0, 4, 5, 5]),
        (Sampling(4, "fps", fps=10.0), 30, [10, 13, 16, 19]),
        (Sampling(3, "fps", fps=1.0, views=2), 91, [0, 30, 60, 30, 60, 90]),
        (Sampling(3, "fps", fps=1.0), 31, [0, 30, 30]),
    ],
)
def test_each_rule_picks_the_documented_frames(sampling, count, expected):
    assert indices(sampling, count) == expected


def mmaction2_sample_frames(count: int, *, clip_len: int, interval: int, num_clips: int) -> list[int]:
    """SampleFrames(test_mode=True, out_of_bound_opt='repeat_last') of mmaction2 1.2, datasets/transforms/loading.py."""
    ori_clip_len = (clip_len - 1) * interval + 1
    max_offset = max(count - ori_clip_len, 0)
    if num_clips > 1:
        offsets = np.round(np.arange(num_clips) * (max_offset / float(num_clips - 1)))
    else:
        offsets = np.array([max_offset // 2])
    frames = offsets[:, None] + np.arange(clip_len)[None, :] * interval
    return np.minimum(frames, count - 1).astype(int).reshape(-1).tolist()


@pytest.mark.parametrize("count", [1, 7, 32, 33, 64, 250, 300, 301])
@pytest.mark.parametrize(
    ("clip_len", "interval", "num_clips"), [(32, 2, 10), (8, 8, 10), (16, 4, 5), (8, 8, 1), (16, 5, 3)]
)
def test_stride_is_mmaction2s_test_sampling(count, clip_len, interval, num_clips):
    ours = indices(Sampling(clip_len, "stride", stride=interval, views=num_clips), count)
    assert ours == mmaction2_sample_frames(count, clip_len=clip_len, interval=interval, num_clips=num_clips)


def slowfast_starts(count: int, *, num_frames: int, stride: int, num_views: int) -> list[float]:
    """First frames of SlowFast's test views: get_start_end_idx(use_offset=False) of slowfast/datasets/decoder.py."""
    delta = max(count - ((num_frames - 1) * stride + 1), 0)
    return [delta * view / max(num_views - 1, 1) for view in range(num_views)]


@pytest.mark.parametrize("count", [64, 250, 300])
def test_ten_views_of_slowfast_span_the_whole_clip(count):
    sampling = Sampling(32, "stride", stride=2, views=10)
    starts = np.array(indices(sampling, count)).reshape(10, 32)[:, 0]
    expected = slowfast_starts(count, num_frames=32, stride=2, num_views=10)
    assert np.abs(starts - expected).max() <= 0.5
    assert starts[0] == 0
    assert starts[-1] + 31 * 2 == count - 1


def mmaction2_uniform_sample(count: int, *, clip_len: int, num_clips: int) -> list[int]:
    """UniformSample(test_mode=True) of mmaction2 1.2, which takes the centre of each of clip_len segments."""
    seg = count / clip_len
    clips = []
    for view in range(num_clips):
        shift = (view + 0.5) / num_clips if num_clips > 1 else 0.5
        clips += [int(seg * (i + shift)) for i in range(clip_len)]
    return clips


@pytest.mark.parametrize(("count", "clip_len"), [(300, 16), (250, 8), (33, 16), (5, 8), (1, 4)])
@pytest.mark.parametrize("views", [1, 2, 4])
def test_uniform_takes_segment_centres(count, clip_len, views):
    expected = mmaction2_uniform_sample(count, clip_len=clip_len, num_clips=views)
    assert indices(Sampling(clip_len, views=views), count) == expected


def pytorchvideo_clip_frames(count: int, fps: float, *, num_frames: int, stride: int) -> list[int]:
    """PyTorchVideo: a clip of num_frames*stride/fps seconds, UniformTemporalSubsample(num_frames) of its frames."""
    clip = np.arange(min(count, round(num_frames * stride / fps * fps)))
    return np.linspace(0, len(clip) - 1, num_frames).astype(int).tolist()


@pytest.mark.parametrize(("num_frames", "stride"), [(8, 8), (16, 5), (13, 6), (4, 12)])
def test_stride_stays_within_pytorchvideos_clip(num_frames, stride):
    # PyTorchVideo spreads over the whole window: its last frame lies up to stride - 1 frames after a strict stride's.
    theirs = np.array(pytorchvideo_clip_frames(num_frames * stride, 30.0, num_frames=num_frames, stride=stride))
    ours = np.array(indices(Sampling(num_frames, "stride", stride=stride), (num_frames - 1) * stride + 1))
    assert np.all((theirs - ours >= 0) & (theirs - ours <= stride - 1))
    assert ours[0] == theirs[0] == 0


def test_time_range_starts_with_the_frame_on_screen_and_ends_before_the_end():
    assert frame_range(times(300), start_s=1.0, end_s=2.0) == (30, 60)
    assert frame_range(times(300), start_s=1.01, end_s=2.01) == (30, 61)
    assert frame_range(times(300), start_s=None, end_s=None) == (0, 300)
    assert frame_range(times(300), start_s=5.0, end_s=None) == (150, 300)


def test_range_shorter_than_a_frame_gives_the_frame_on_screen():
    assert frame_range(times(300), start_s=1.005, end_s=1.010) == (30, 31)


def test_clock_rounding_does_not_move_a_range_by_a_frame():
    exact = times(300, 29.97)
    for index in (1, 100, 299):
        assert frame_range(exact, start_s=round(exact[index], 3), end_s=None)[0] == index


def test_range_behind_the_end_is_refused():
    with pytest.raises(ValueError, match="lies behind the last frame"):
        frame_range(times(300), start_s=11.0, end_s=12.0)


def test_video_without_frames_is_refused():
    with pytest.raises(ValueError, match="no frames"):
        frame_range(np.empty(0), start_s=None, end_s=None)


def test_fps_follows_time_where_the_frame_rate_varies():
    pts_s = np.concatenate([np.arange(30) / 30, 1 + np.arange(10) / 5])  # 30 fps, then 5 fps
    chosen = slot_indices(request(Sampling(4, "fps", fps=1.0)), pts_s=pts_s, start_s=None, end_s=None)
    assert pts_s[chosen].tolist() == pytest.approx([0.0, 1.0, 2.0, 2.8])


def test_several_members_share_one_list_of_slots():
    both = request(Sampling(4), Sampling(2, "stride", stride=3, views=2))
    assert slot_indices(both, pts_s=times(20), start_s=None, end_s=None).tolist() == [2, 7, 12, 17, 0, 3, 16, 19]
    assert view_starts(both) == [0, 4, 6]


def test_repeats_count_within_a_view_only():
    both = request(Sampling(4), Sampling(2, views=2))
    repeated = repeated_slots(both, np.array([0, 0, 1, 1, 1, 1, 1, 2]))
    assert repeated.tolist() == [False, True, False, True, False, True, False, False]


samplings = st.builds(
    Sampling,
    num_frames=st.integers(1, 64),
    rule=st.sampled_from(["uniform", "stride", "fps"]),
    stride=st.integers(1, 40),
    fps=st.floats(0.1, 240),
    views=st.integers(1, 12),
    crops=st.sampled_from([1, 3]),
)


@given(
    members=st.lists(samplings, min_size=1, max_size=4),
    gaps=st.lists(st.floats(1e-3, 5), min_size=1, max_size=400),
    start=st.none() | st.floats(0, 1),
    length=st.none() | st.floats(0.001, 10),
)
def test_any_request_gets_frames_of_its_range_in_order_within_each_view(members, gaps, start, length):
    pts_s = np.cumsum(gaps) - gaps[0]
    start_s = None if start is None else start * float(pts_s[-1])
    end_s = None if length is None else (start_s or 0.0) + length
    wanted = request(*members)
    slots = slot_indices(wanted, pts_s=pts_s, start_s=start_s, end_s=end_s)
    first, stop = frame_range(pts_s, start_s=start_s, end_s=end_s)
    assert slots.shape == (wanted.num_slots,)
    assert slots.dtype == np.int64
    assert slots.min() >= first
    assert slots.max() < stop
    falls = np.flatnonzero(np.diff(slots) < 0) + 1
    assert set(falls.tolist()) <= set(view_starts(wanted))


@pytest.mark.parametrize(("views", "published"), [(10, 30), (5, 15), (4, 12), (1, 3)])
def test_three_crops_triple_the_published_views_without_further_frames(views, published):
    centre, three = Sampling(8, "stride", stride=4, views=views), Sampling(8, "stride", stride=4, views=views, crops=3)
    assert three.num_views == published
    assert view_starts(request(three)) == list(range(0, 8 * published, 8))
    by_view = np.array(indices(three, 300)).reshape(views, 3, 8)
    assert np.array_equal(by_view, np.array(indices(centre, 300)).reshape(views, 1, 8).repeat(3, axis=1))


def test_slots_know_their_crop():
    both = request(Sampling(2, views=2), Sampling(1, views=2, crops=3))
    assert crop_of_slots(both).tolist() == [1, 1, 1, 1, 0, 1, 2, 0, 1, 2]


def mmaction2_dense_sample(count: int, *, sample_range: int, num_positions: int, num_clips: int) -> list[int]:
    """DenseSampleFrames(test_mode=True) of mmaction2 1.2, datasets/transforms/loading.py."""
    sample_position = max(1, 1 + count - sample_range)
    base_offsets = np.arange(num_clips) * (sample_range // num_clips)
    starts = np.linspace(0, sample_position - 1, num=num_positions, dtype=int)
    return ((starts[:, None] + base_offsets[None, :]) % count).reshape(-1).tolist()


@pytest.mark.parametrize("count", [64, 65, 250, 300])
def test_dense_views_start_within_a_stride_of_mmaction2s_dense_sampling(count):
    # Theirs keeps room for a whole stride behind the last frame, ours ends with the clip's last frame.
    theirs = mmaction2_dense_sample(count, sample_range=64, num_positions=10, num_clips=8)
    ours = np.array(indices(Sampling(8, "stride", stride=8, views=10), count)).reshape(10, 8)
    ahead = ours - np.array(theirs).reshape(10, 8)
    assert np.all(np.diff(ours, axis=1) == 8)
    assert np.all((ahead >= 0) & (ahead <= 8))
    assert np.all(ahead[0] == 0)


def pytorchvideo_uniform_starts(duration_s: float, *, clip_s: float, num_clips: int) -> list[float]:
    """Starts of ConstantClipsPerVideoSampler (pytorchvideo 0.1.5, data/clip_sampling.py), the zoo's test sampler."""
    last_start = max(duration_s - clip_s, 0)
    return [last_start * i / max(num_clips - 1, 1) for i in range(num_clips)]


@pytest.mark.parametrize("count", [250, 300])
@pytest.mark.parametrize(("num_frames", "stride", "views"), [(8, 8, 10), (16, 5, 10), (13, 6, 10), (32, 2, 10)])
def test_views_start_within_a_stride_of_pytorchvideos_uniform_sampler(count, num_frames, stride, views):
    clip_s, fps = num_frames * stride / 30, 30
    theirs = np.array(pytorchvideo_uniform_starts(count / fps, clip_s=clip_s, num_clips=views)) * fps
    ours = np.array(indices(Sampling(num_frames, "stride", stride=stride, views=views), count))
    ahead = ours.reshape(views, num_frames)[:, 0] - theirs
    assert np.all((ahead >= -0.5) & (ahead <= stride - 0.5))
