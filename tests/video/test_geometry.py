import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidcls_batch.video.geometry import CoverCrop, PictureShape, cover_crop, crop_corners


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
    for top, left in crop_corners(plan, height=out_height, width=out_width):
        assert 0 <= top <= turned[0] - out_height
        assert 0 <= left <= turned[1] - out_width


def slowfast_uniform_crop(height: int, width: int, size: int, spatial_idx: int) -> tuple[int, int]:
    """Offsets of uniform_crop, slowfast/datasets/transform.py."""
    y, x = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        y = {0: 0, 1: y, 2: height - size}[spatial_idx]
    else:
        x = {0: 0, 1: x, 2: width - size}[spatial_idx]
    return y, x


@pytest.mark.parametrize(("width", "height"), [(340, 256), (256, 340), (456, 256), (256, 256), (1280, 720)])
def test_three_crops_are_slowfasts(width, height):
    plan = cover_crop(PictureShape(width, height), height=256, width=256)
    expected = [slowfast_uniform_crop(plan.scaled_height, plan.scaled_width, 256, i) for i in range(3)]
    corners = crop_corners(plan, height=256, width=256)
    assert corners[0] == expected[0]
    assert corners[2] == expected[2]
    assert [abs(a - b) <= 1 for a, b in zip(corners[1], expected[1], strict=True)] == [True, True]  # theirs rounds up


def test_crops_of_a_turned_picture_go_along_its_longer_side_as_shown():
    plan = cover_crop(PictureShape(340, 256, rotation=90), height=256, width=256)
    assert crop_corners(plan, height=256, width=256) == ((0, 0), (42, 0), (84, 0))
