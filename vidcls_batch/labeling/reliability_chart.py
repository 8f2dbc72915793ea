"""Reliability diagrams as a PNG: how often clips of a score were right, before and after calibration."""

from collections.abc import Sequence
from pathlib import Path

from vidcls_batch.labeling.calibration_metrics import Bin, Quality

Side = tuple[Sequence[Bin], Quality]
Panel = tuple[str, Side, Side]
"""A title, then what it was before and after."""

SIDE = 240
MARGIN = 44
_BAR, _GAP, _LINE, _TEXT = "#4477aa", "#ee8866", "#888888", "#222222"


def write_reliability_chart(path: str | Path, panels: Sequence[Panel]) -> None:
    """One row per panel: bars are the share of right labels, the line is where they should end."""
    from PIL import Image, ImageDraw

    cell = SIDE + 2 * MARGIN
    image = Image.new("RGB", (2 * cell, len(panels) * cell), "white")
    draw = ImageDraw.Draw(image)
    for row, (title, *sides) in enumerate(panels):
        for column, (when, (bins, measured)) in enumerate(zip(("before", "after"), sides, strict=True)):
            left, top = column * cell + MARGIN, row * cell + MARGIN
            draw.text((left, top - 32), f"{title}, {when}", fill=_TEXT)
            facts = f"ECE {measured.ece:.3f}  Brier {measured.brier:.3f}  NLL {measured.nll:.3f}"
            draw.text((left, top - 17), facts, fill=_TEXT)
            _draw_bins(draw, bins, left=left, top=top)
    image.save(path, format="PNG")


def _draw_bins(draw: object, bins: Sequence[Bin], *, left: int, top: int) -> None:
    from PIL import ImageDraw

    assert isinstance(draw, ImageDraw.ImageDraw)
    bottom, most = top + SIDE, max((b.count for b in bins), default=0) or 1
    for found in bins:
        if not found.count:
            continue
        x0, x1 = left + found.low * SIDE + 1, left + found.high * SIDE - 1
        height, wanted = bottom - found.accuracy * SIDE, bottom - found.mean_score * SIDE
        draw.rectangle((x0, height, x1, bottom), fill=_BAR)
        draw.rectangle((x0, min(height, wanted), x1, max(height, wanted)), outline=_GAP)
        # A stripe below tells how many clips a bin rests on.
        draw.rectangle((x0, bottom + 4, x1, bottom + 4 + 10 * found.count / most), fill=_LINE)
    draw.line((left, bottom, left + SIDE, top), fill=_LINE)
    draw.rectangle((left, top, left + SIDE, bottom), outline=_TEXT)
    draw.text((left + SIDE // 2 - 14, bottom + 18), "score", fill=_TEXT)
    draw.text((left - MARGIN + 2, top + SIDE // 2), "right", fill=_TEXT)
