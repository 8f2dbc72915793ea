"""How a picture is scaled, turned and cropped to cover an output size: arithmetic only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CoverCrop:
    """Scale the stored picture to `scaled_width` x `scaled_height`, turn it, then cut the output from `top`, `left`.

    `quarter_turns` are counter-clockwise (numpy.rot90); `top` and `left` count after the turn.
    """

    scaled_width: int
    scaled_height: int
    quarter_turns: int
    top: int
    left: int


@dataclass(frozen=True, slots=True)
class PictureShape:
    """A decoded picture as stored: size, sample (pixel) aspect ratio, counter-clockwise rotation in degrees."""

    width: int
    height: int
    sample_aspect: float = 1.0
    rotation: int = 0


def cover_crop(picture: PictureShape, *, height: int, width: int) -> CoverCrop:
    """The centre crop of the smallest scaled picture that covers `height` x `width`, as displayed."""
    turns = round(picture.rotation / 90) % 4
    stored_height, stored_width = (width, height) if turns % 2 else (height, width)
    shown_width = picture.width * picture.sample_aspect
    scale = max(stored_width / shown_width, stored_height / picture.height)
    scaled_width = max(stored_width, _even(shown_width * scale, at_least=stored_width))
    scaled_height = max(stored_height, _even(picture.height * scale, at_least=stored_height))
    turned_height, turned_width = (scaled_width, scaled_height) if turns % 2 else (scaled_height, scaled_width)
    return CoverCrop(
        scaled_width=scaled_width,
        scaled_height=scaled_height,
        quarter_turns=turns,
        top=(turned_height - height) // 2,
        left=(turned_width - width) // 2,
    )


def crop_corners(plan: CoverCrop, *, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Top and left of three crops: at the start, in the centre and at the end of the turned picture's longer side.

    SlowFast's uniform_crop and MMAction2's ThreeCrop, left to right and top to bottom.
    """
    turned = (
        (plan.scaled_width, plan.scaled_height) if plan.quarter_turns % 2 else (plan.scaled_height, plan.scaled_width)
    )
    bottom, right = turned[0] - height, turned[1] - width
    if bottom > right:
        return (0, plan.left), (plan.top, plan.left), (bottom, plan.left)
    return (plan.top, 0), (plan.top, plan.left), (plan.top, right)


def _even(length: float, *, at_least: int) -> int:
    # The side that fits keeps its exact length, the other goes to the nearest even one: chroma planes are half as wide.
    return at_least if abs(length - at_least) < 0.5 else round(length / 2) * 2
