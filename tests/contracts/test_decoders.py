"""What every decoder backend must do, on every clip of the zoo."""

import numpy as np
import pytest

from tests.video.clips import Recipe, index_sets, number_in
from tests.video.odd_clips import CLEAN, READABLE, RECIPES, UNREADABLE, WITHOUT_VIDEO, clip
from vidcls_batch.errors import ClipError, ConfigError, Status
from vidcls_batch.types import DecodeLimits, FrameRequest, Frames, Sampling
from vidcls_batch.video.decode import decode_in_process
from vidcls_batch.video.decoders.base import BACKENDS as ALL_BACKENDS
from vidcls_batch.video.decoders.base import Decoder, make_decoder


def _is_installed(backend: str) -> bool:
    try:
        make_decoder(backend, height=8, width=8)
    except ConfigError:
        return False
    return True


BACKENDS = [
    pytest.param(b, marks=pytest.mark.skipif(not _is_installed(b), reason=f"{b} is not installed"))
    for b in ALL_BACKENDS
]
OTHERS = [p for p in BACKENDS if p.values[0] not in ("pyav", "pyav-sequential")]

LIMITS = DecodeLimits()
REFERENCE = "pyav-sequential"
# Turned or stretched on display: their numbers are read in tests of their own.
PLAIN = tuple(name for name in CLEAN if not name.startswith(("h264_rotated", "h264_sar")))


def decoder_for(name: str, backend: str) -> Decoder:
    recipe = RECIPES.get(name, Recipe())
    return make_decoder(backend, height=recipe.height, width=recipe.width)


def read(name: str, backend: str, wanted: list[int] | None = None) -> tuple[Frames, str]:
    """Frames at the stored size, all of them by default, and who decoded them."""
    recipe = RECIPES.get(name, Recipe())
    with decoder_for(name, backend).open(clip(name), limits=LIMITS) as opened:
        indices = list(range(len(opened.pts_s))) if wanted is None else wanted
        frames = np.zeros((len(indices), recipe.height, recipe.width, 3), np.uint8)
        opened.read(indices, list(frames))
        return frames, opened.decoder


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_come_in_the_order_they_were_drawn(name, backend):
    recipe = RECIPES.get(name, Recipe())
    frames, _ = read(name, backend)
    first = 20 if name == "h264_edit_list" else 0
    assert [number_in(frame, width=recipe.width) for frame in frames] == list(range(first, recipe.count))


@pytest.mark.parametrize("name", READABLE)
def test_planned_decode_equals_the_reference_bit_for_bit(name):
    reference, _ = read(name, REFERENCE)
    planned = decoder_for(name, "pyav")
    for wanted in index_sets(len(reference), sets=20):
        with planned.open(clip(name), limits=LIMITS) as opened:
            assert len(opened.pts_s) == len(reference)
            frames = np.zeros((len(wanted), *reference.shape[1:]), np.uint8)
            opened.read(wanted, list(frames))
        assert np.array_equal(frames, reference[wanted]), wanted


@pytest.mark.parametrize("name", [n for n in READABLE if "damaged" not in n])  # each decoder patches damage its own way
@pytest.mark.parametrize("backend", OTHERS)
def test_other_backends_show_the_same_pictures(name, backend):
    # Not bit for bit: their conversion to RGB is their own.
    reference, _ = read(name, REFERENCE)
    for wanted in list(index_sets(len(reference), sets=20))[4:12]:
        frames, _ = read(name, backend, list(wanted))
        assert np.abs(frames.astype(int) - reference[wanted]).mean() < 6, wanted


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_video_is_a_decode_error(name, backend):
    with pytest.raises(ClipError) as caught:
        decode_in_process(clip(name), FrameRequest((Sampling(4),), 64, 64), backend=backend)
    assert caught.value.status is Status.DECODE_ERROR


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WITHOUT_VIDEO)
def test_sound_alone_is_no_video(name, backend):
    with pytest.raises(ClipError) as caught:
        decode_in_process(clip(name), FrameRequest((Sampling(4),), 64, 64), backend=backend)
    assert caught.value.status is Status.NO_VIDEO


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_say_which_backend_decoded_them(backend):
    assert read("h264", backend)[1].startswith(f"{backend}-")


def test_decord_hands_over_what_it_is_known_to_get_wrong():
    for name in (
        "h264_ts",
        "h264_fragmented",
        "wmv",
        "mpeg4_mp4",
        "h264_open_gop",
        "hevc",
        "av1_mp4",
        "h264_two_videos",
    ):
        assert read(name, "decord", [0])[1].startswith("pyav-"), name


def test_the_zoo_is_as_large_as_promised():
    assert len(READABLE) + len(UNREADABLE) + len(WITHOUT_VIDEO) >= 30


@pytest.mark.parametrize(("name", "turns"), [("h264_rotated_90", 1), ("h264_rotated_180", 2), ("h264_rotated_270", 3)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_turned_video_stands_upright(name, turns, backend):
    height, width = (160, 120) if turns % 2 else (120, 160)
    decoded = decode_in_process(clip(name), FrameRequest((Sampling(5),), height, width), backend=backend)
    unturned = np.rot90(decoded.frames, -turns, axes=(1, 2))
    assert [number_in(frame) for frame in unturned] == [9, 27, 45, 63, 81]


@pytest.mark.parametrize("backend", BACKENDS)
def test_wide_pixels_are_shown_wide(backend):
    # 160 x 120 stored with 4:3 pixels is 213 x 120 on screen; at that size the number's blocks are a third wider.
    decoded = decode_in_process(clip("h264_sar"), FrameRequest((Sampling(5),), 120, 212), backend=backend)
    assert [number_in(frame) for frame in decoded.frames] == [9, 27, 45, 63, 81]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["h264_full_range", "h264_bt709", "hevc_hdr", "h264_10bit"])
def test_colour_range_and_matrix_are_honoured(name, backend):
    frames, _ = read(name, backend, [0])
    reference, _ = read("h264_444_odd_size", REFERENCE, [0])
    assert frames[0, :16, :128].mean() == pytest.approx(16, abs=4)  # frame 0: all bits black
    assert abs(frames[0].mean() - reference[0, :120, :160].mean()) < 12


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["h264", "h264_rotated_90"])
def test_three_crops_of_each_view_come_from_one_decode(name, backend):
    side, views = 120, Sampling(4, "stride", stride=2, views=2, crops=3)
    centre = Sampling(4, "stride", stride=2, views=2)
    shape = (160, 120) if "rotated" in name else (120, 160)
    whole = decode_in_process(clip(name), FrameRequest((centre,), *shape), backend=backend).frames
    decoded = decode_in_process(clip(name), FrameRequest((views, centre), side, side), backend=backend)
    crops = decoded.frames[: views.num_slots].reshape(2, 3, 4, side, side, 3)
    pictures = whole.reshape(2, 4, *whole.shape[1:])
    for position, offset in enumerate((0, 20, 40)):
        part = np.take(pictures, range(offset, offset + side), axis=2 if "rotated" in name else 3)
        assert np.array_equal(crops[:, position], part)
    assert np.array_equal(decoded.frames[views.num_slots :], crops[:, 1].reshape(-1, side, side, 3))
    quality = decoded.report.quality
    assert (quality.frames_requested, quality.frames_decoded, quality.frames_repeated) == (32, 8, 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_time_range_of_a_long_file_shows_that_part(backend):
    decoded = decode_in_process(
        clip("h264"),
        FrameRequest((Sampling(4, "stride", stride=1),), 120, 160),
        start_s=1.0,
        end_s=1.2,
        backend=backend,
    )
    assert [number_in(frame) for frame in decoded.frames] == [31, 32, 33, 34]
