"""From a decoded picture to an RGB frame of the request's size, through swscale."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.video.geometry import CoverCrop, PictureShape, cover_crop, crop_corners

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# Scaling planar 8-bit YUV and only then converting to RGB costs a third of scaling straight to RGB: swscale has SIMD
# for the first and not for the second. Deeper and semi-planar formats go through the 8-bit planar one
# of the same chroma.
_INTERMEDIATE_BY_PREFIX = (
    ("yuv420p", "yuv420p"),
    ("yuvj420p", "yuvj420p"),
    ("yuv422p", "yuv422p"),
    ("yuvj422p", "yuvj422p"),
    ("yuv444p", "yuv444p"),
    ("yuvj444p", "yuvj444p"),
    ("yuva420p", "yuv420p"),
    ("yuv411p", "yuv422p"),
    ("yuv410p", "yuv420p"),
    ("nv12", "yuv420p"),
    ("p010", "yuv420p"),
    ("yuyv422", "yuv422p"),
    ("uyvy422", "yuv422p"),
)


# Where a picture goes, uint8 [height, width, 3]: its centre, or its crops at the start, in the centre and at the end of
# the longer side.
Row = NDArray[np.uint8] | tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


class Rescaler:
    """Writes pictures into RGB rows of one size. Keeps swscale's contexts, so one object serves many pictures."""

    def __init__(self, *, height: int, width: int) -> None:
        from av.video.reformatter import VideoReformatter

        self._height, self._width = height, width
        self._scale, self._to_rgb = VideoReformatter(), VideoReformatter()
        self._plans: dict[PictureShape, CoverCrop] = {}

    def write(self, picture: "VideoFrame", *, sample_aspect: float, out: Row) -> None:
        """Fill `out` with the picture scaled to cover and turned upright.

        One row gets the centre; three get the start, the centre and the end of the longer side.
        """
        shape = PictureShape(picture.width, picture.height, sample_aspect, picture.rotation)
        plan = self._plans.get(shape)
        if plan is None:
            plan = self._plans[shape] = cover_crop(shape, height=self._height, width=self._width)
        rgb = self._rgb(picture, plan)
        upright = np.rot90(rgb, plan.quarter_turns) if plan.quarter_turns else rgb
        if isinstance(out, np.ndarray):
            out[...] = self._cut(upright, plan.top, plan.left)
            return
        for crop, (top, left) in zip(out, crop_corners(plan, height=self._height, width=self._width), strict=True):
            crop[...] = self._cut(upright, top, left)

    def _cut(self, upright: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
        return upright[top : top + self._height, left : left + self._width]

    def _rgb(self, picture: "VideoFrame", plan: CoverCrop) -> NDArray[np.uint8]:
        scaled = self._scale.reformat(
            picture,
            width=plan.scaled_width,
            height=plan.scaled_height,
            format=_intermediate_format(picture.format.name),
            interpolation="BILINEAR",
            threads=1,
        )
        rgb = self._to_rgb.reformat(scaled, format="rgb24", interpolation="BILINEAR", threads=1)
        plane = rgb.planes[0]
        rows: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8, count=plane.line_size * rgb.height)
        rows = rows.reshape(rgb.height, plane.line_size)[:, : rgb.width * 3]
        return rows.reshape(rgb.height, rgb.width, 3)


def _intermediate_format(source: str) -> str:
    return next((planar for prefix, planar in _INTERMEDIATE_BY_PREFIX if source.startswith(prefix)), "rgb24")
