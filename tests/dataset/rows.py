"""Rows as a classifier sends them, for a small run."""

from collections.abc import Sequence

import pyarrow as pa

RESULTS = pa.schema(
    [
        pa.field("status", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("topk_labels", pa.list_(pa.string())),
        pa.field("logits", pa.list_(pa.float16(), 3)),
    ]
)
ROWS = pa.schema([("unit", pa.int32()), ("clip_id", pa.string()), *RESULTS])


def labeled(unit: int, clip_ids: Sequence[str], *, status: str = "ok", label: str = "push") -> pa.Table:
    """Rows as they come from a classifier; the score tells the clip."""
    size = len(clip_ids)
    ok = status == "ok"
    columns = {
        "unit": pa.array([unit] * size, pa.int32()),
        "clip_id": pa.array(clip_ids, pa.string()),
        "status": [status] * size,
        "label": pa.array([label if ok else None] * size, pa.string()),
        "score": pa.array([score_of(c) if ok else None for c in clip_ids], pa.float32()),
        "topk_labels": pa.array([[label, "pull"] if ok else None] * size, pa.list_(pa.string())),
        "logits": pa.array([[1.0, 2.0, 3.0] if ok else None] * size, pa.list_(pa.float16(), 3)),
    }
    return pa.table(columns, schema=ROWS)


def score_of(clip_id: str) -> float:
    return sum(clip_id.encode()) % 97 / 128  # exact in float32
