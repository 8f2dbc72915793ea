"""The one schema of a run's prediction table, derived from the config before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

IDENTITY = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
    ]
)
OUTCOME = pa.schema(
    [
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_stage", pa.string()),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)
SOURCE = pa.schema(
    [
        pa.field("duration_s", pa.float64()),
        pa.field("fps", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("codec", pa.string()),
        pa.field("num_bytes", pa.int64()),
        pa.field("content_hash", pa.string()),
    ]
)
QUALITY = pa.schema(
    [
        pa.field("frames_requested", pa.int32()),
        pa.field("frames_decoded", pa.int32()),
        pa.field("frames_repeated", pa.int32()),
        pa.field("packet_errors", pa.int32()),
        pa.field("frames_corrupt", pa.int32()),
        pa.field("frame_pts_s", pa.list_(pa.float64())),
        pa.field("dark_ratio", pa.float32()),
        pa.field("frozen_ratio", pa.float32()),
        pa.field("audio", pa.string()),  # types.AudioState; null where no member hears
        pa.field("decoder", pa.string()),
    ]
)
LABEL = pa.schema(
    [
        pa.field("label", pa.string()),
        pa.field("label_id", pa.int32()),
        pa.field("score", pa.float32()),
        pa.field("margin", pa.float32()),
        pa.field("entropy", pa.float32()),
        pa.field("agreement", pa.float32()),
        pa.field("divergence", pa.float32()),
        pa.field("topk_labels", pa.list_(pa.string())),
        pa.field("topk_scores", pa.list_(pa.float32())),
        pa.field("cascade", pa.string()),
    ]
)
COST = pa.schema(
    [
        pa.field("fetch_ms", pa.float32()),
        pa.field("fetch_requests", pa.int32()),
        pa.field("fetched_bytes", pa.int64()),
        pa.field("decode_ms", pa.float32()),
        pa.field("infer_ms", pa.float32()),
    ]
)

# What the decode stage knows of a clip; travels beside the frames.
DECODED = pa.schema([*OUTCOME, *SOURCE, *QUALITY, *(f for f in COST if f.name != "infer_ms")])
# Routes a row from the plan to its unit's file; never written.
ROUTE = pa.schema([pa.field("unit", pa.int32(), nullable=False), pa.field("clip_id", pa.string(), nullable=False)])


@dataclass(frozen=True, slots=True)
class MemberColumns:
    """What one member adds to each row; None leaves the optional column out."""

    name: str
    num_logits: int | None = None
    embedding_dim: int | None = None
    context_dim: int | None = None

    @property
    def fields(self) -> list[pa.Field]:
        """The member's columns in order."""
        fields = [
            pa.field(f"{self.name}_label", pa.string()),
            pa.field(f"{self.name}_score", pa.float32()),
            pa.field(f"{self.name}_topk_labels", pa.list_(pa.string())),
            pa.field(f"{self.name}_topk_scores", pa.list_(pa.float32())),
        ]
        if self.num_logits is not None:
            fields.append(pa.field(f"{self.name}_logits", pa.list_(pa.float16(), self.num_logits)))
        if self.embedding_dim is not None:
            fields.append(pa.field(f"{self.name}_embedding", pa.list_(pa.float16(), self.embedding_dim)))
        if self.context_dim is not None:
            fields.append(pa.field(f"{self.name}_context", pa.list_(pa.float16(), self.context_dim)))
        return fields


def result_schema(members: Sequence[MemberColumns]) -> pa.Schema:
    """What the workers return for a clip: everything but what the plan already knows."""
    member_fields = [f for m in members for f in m.fields]
    return pa.schema([*ROUTE, *OUTCOME, *SOURCE, *QUALITY, *LABEL, *member_fields, *COST])


def prediction_schema(members: Sequence[MemberColumns], *, extras: pa.Schema) -> pa.Schema:
    """The schema of every file of a run: identity, the manifest's `extras` unchanged, then the results."""
    results = [f for f in result_schema(members) if f.name not in ROUTE.names]
    return pa.schema([*IDENTITY, *extras, *results])


def reserved_columns(members: Sequence[MemberColumns]) -> frozenset[str]:
    """Names a manifest's extra columns must not have."""
    return frozenset(prediction_schema(members, extras=pa.schema([])).names) | {"unit"}
