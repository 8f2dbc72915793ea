from hypothesis import given
from hypothesis import strategies as st

from vidcls_batch.video.geometry import CoverCrop, PictureShape, cover_crop


def test_wide_picture_is_scaled_by_its_height():
    assert cover_crop(PictureShape(340, 256), height=224, width=224) == CoverCrop(298, 224, 0, 0, 37)


def test_tall_picture_is_scaled_by_its_width():
    assert cover_crop(PictureShape(720, 1280), height=224, width=224) == CoverCrop(224, 398, 0, 87, 0)


def test_same_size_is_left_alone():
    assert cover_crop(PictureShape(161, 121), height=121, width=161) == CoverCrop(161, 121, 0, 0, 0)


def test_wide_pixels_widen_the_picture():
    assert cover_crop(PictureShape(160, 120, sample_aspect=4 / 3), height=120, width=160) == CoverCrop(
        214, 120, 0, 0, 27
    )


def test_turned_picture_covers_after_the_turn():
    plan = cover_crop(PictureShape(1280, 720, rotation=-90), height=256, width=224)
    assert (plan.scaled_width, plan.scaled_height, plan.quarter_turns) == (398, 224, 3)
    assert (plan.top, plan.left) == (71, 0)


@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    aspect=st.floats(0.2, 5),
    rotation=st.sampled_from([0, 90, 180, -90, -180]),
    out_height=st.integers(8, 512),
    out_width=st.integers(8, 512),
)
def test_the_crop_always_lies_within_the_scaled_picture(width, height, aspect, rotation, out_height, out_width):
    plan = cover_crop(PictureShape(width, height, aspect, rotation), height=out_height, width=out_width)
    turned = (plan.scaled_height, plan.scaled_width)
    if plan.quarter_turns % 2:
        turned = turned[::-1]
    assert plan.top >= 0
    assert plan.left >= 0
    assert plan.top + out_height <= turned[0]
    assert plan.left + out_width <= turned[1]
    assert turned[0] == out_height or turned[1] == out_width
