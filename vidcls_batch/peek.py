"""One clip through the stages of a run, in this process and without Ray: what `vidcls peek` shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vidcls_batch.config import Config
from vidcls_batch.errors import Status
from vidcls_batch.resources import stage_resources, this_machine
from vidcls_batch.run_spec import RunSpec, resolve_run
from vidcls_batch.stages.classify import BlockClassifier, frames_of
from vidcls_batch.stages.decode import CLIPS, BlockDecoder
from vidcls_batch.storage import absolute_uri
from vidcls_batch.types import Frames

SHEET_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Peek:
    """What a run would write for one clip."""

    row: dict[str, Any]
    members: tuple[str, ...]
    sheet: Path | None

    @property
    def ok(self) -> bool:
        """Whether the clip got a label."""
        return bool(self.row["status"] == Status.OK.value)

    def as_json(self) -> dict[str, Any]:
        """The row, without the columns only a run can fill."""
        return {k: v for k, v in self.row.items() if k not in ("unit", "attempts")}

    def __str__(self) -> str:
        row = self.row
        if not self.ok:
            return f"{row['clip_id']}\n  {row['status']} at {row['error_stage']}: {row['error_message']}"
        source = f"{row['codec']} {row['width']}x{row['height']}, {row['duration_s']:.2f} s, {row['fps']:.2f} fps"
        lines = [
            row["clip_id"],
            f"  source     {source}",
            f"  frames     {row['frames_decoded']} distinct for {row['frames_requested']} slots, by {row['decoder']}",
            f"  label      {row['label']}: score {row['score']:.3f}, margin {row['margin']:.3f}, "
            f"agreement {row['agreement']:.2f}",
            f"  top        {_scores(row['topk_labels'], row['topk_scores'])}",
        ]
        if row["audio"] is not None:
            lines.insert(3, f"  sound      {row['audio']}")
        for name in self.members:
            if row[f"{name}_label"] is None:
                lines.append(f"  {name:<10} no score")
                continue
            lines.append(f"  {name:<10} {_scores(row[f'{name}_topk_labels'], row[f'{name}_topk_scores'])}")
        lines.append(f"  decode {row['decode_ms']:.0f} ms, inference {row['infer_ms']:.0f} ms")
        if self.sheet is not None:
            lines.append(f"  frames the models saw: {self.sheet}")
        return "\n".join(lines)


def peek_at(
    video: str,
    *,
    config: Config,
    start_s: float | None = None,
    end_s: float | None = None,
    sheet: Path | None = None,
) -> Peek:
    """Label one clip as a run with `config` would. Raises ConfigError or CheckpointError; a bad clip is in the row."""
    spec = resolve_run(config)
    block = _decode(video, spec=spec, start_s=start_s, end_s=end_s)
    resources = stage_resources(config.resources, capacity=this_machine(), frame_bytes=spec.frame_bytes)
    row = BlockClassifier(spec.classify_settings(resources))(block).to_pylist()[0]
    written = None
    if sheet is not None and row["frames_decoded"]:
        write_contact_sheet(sheet, frames_of(block)[0], times_s=row["frame_pts_s"])
        written = sheet
    return Peek(row=row, members=tuple(m.name for m in spec.members), sheet=written)


def write_contact_sheet(path: Path, frames: Frames, *, times_s: Sequence[float]) -> None:
    """Frames uint8 [slots, H, W, 3] as one PNG, SHEET_COLUMNS to a row, each with its time in seconds."""
    from PIL import Image, ImageDraw

    slots, height, width, _ = frames.shape
    columns = min(SHEET_COLUMNS, slots)
    sheet = np.zeros((math.ceil(slots / columns) * height, columns * width, 3), np.uint8)
    for slot, frame in enumerate(frames):
        top, left = slot // columns * height, slot % columns * width
        sheet[top : top + height, left : left + width] = frame
    image = Image.fromarray(sheet)
    draw = ImageDraw.Draw(image)
    for slot, time_s in enumerate(times_s):
        corner = (slot % columns * width + 2, slot // columns * height + 1)
        draw.text(corner, f"{time_s:.2f}s", fill="white", stroke_width=1, stroke_fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")


def _decode(video: str, *, spec: RunSpec, start_s: float | None, end_s: float | None) -> pa.Table:
    clip = {
        "unit": 0,
        "clip_id": video,
        "uri": absolute_uri(video),
        "start_s": start_s,
        "end_s": end_s,
        "attempts": 1,
    }
    with BlockDecoder(spec.decode_settings()) as decoder:
        return decoder(pa.Table.from_pylist([clip], schema=CLIPS))


def _scores(labels: Sequence[str], scores: Sequence[float]) -> str:
    return " · ".join(f"{label} {score:.3f}" for label, score in zip(labels, scores, strict=True))
