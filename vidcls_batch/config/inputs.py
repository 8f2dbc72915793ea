"""Where clips and labels come from, how clips are decoded, and where rows go."""

import os
import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vidcls_batch.config.section import Section
from vidcls_batch.types import DecodeLimits


class RunConfig(Section):
    """Where the run lives."""

    path: str = Field(
        description="Output folder: a local path or any fsspec URI, e.g. s3://bucket/runs/k400.", min_length=1
    )
    endpoint_url: str | None = Field(
        None, description="S3 endpoint for all s3:// URIs of the run; default: AWS_ENDPOINT_URL or Amazon."
    )
    ray_address: str | None = Field(
        None, description="Ray cluster to join; default: RAY_ADDRESS, else a private local cluster."
    )
    canary_clips: int = Field(
        8, ge=0, le=1000, description="Clips scored a second time at the end; a difference fails the run."
    )
    max_poison_clips: int = Field(
        100, ge=0, description="More clips than this that kill their worker mean the job is at fault, and it stops."
    )
    max_failed_share: float = Field(
        0.95,
        gt=0,
        le=1,
        description="A larger share of failed clips, of at least 1,000, means the job is at fault: it stops. 1: never.",
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Extra keyword arguments of the fsspec file system of the run's stores; never secrets.",
    )

    @field_validator("storage_options")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if re.search(r"secret|token|password|key", key, re.IGNORECASE):
                raise ValueError(
                    f"{key!r} looks like a credential, and run.json records the config: "
                    "pass credentials by environment or role"
                )
        return value


class ManifestColumns(Section):
    """How the manifest names its columns."""

    uri: str = "uri"
    clip_id: str = Field(
        "clip_id", description="Optional column; without it ids are derived from uri, start_s and end_s."
    )
    start_s: str = Field("start_s", description="Optional column: where the clip starts in its file, seconds.")
    end_s: str = Field("end_s", description="Optional column: where the clip ends in its file, seconds.")


class ManifestConfig(Section):
    """Which clips to label."""

    path: str = Field(
        description="A Parquet, CSV, JSONL or text file (or a folder of Parquet files), a folder of videos, or a glob "
        "such as s3://bucket/prefix/**/*.mp4.",
        min_length=1,
    )
    format: Literal["auto", "parquet", "csv", "jsonl", "text", "folder"] = "auto"
    columns: ManifestColumns = ManifestColumns()
    allow: tuple[str, ...] = Field(
        (),
        description="Where clips may lie: URI prefixes or folders; others become fetch_error. Default: anywhere for a "
        "run on this machine; on a cluster object stores and public web servers, no files and no private addresses.",
    )


class LabelSetConfig(Section):
    """Labels: exactly one of the three. In short, a list is the labels, text is a file or a built-in name."""

    name: str | None = Field(None, description="A built-in label set, e.g. kinetics400.")
    file: str | None = Field(None, description="A label-set file: YAML, or text with one label a line.")
    labels: tuple[str, ...] | None = Field(None, description="The labels themselves, in id order.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            return {"labels": value}
        if isinstance(value, str):
            is_file = "/" in value or value.endswith((".yaml", ".yml", ".txt"))
            return {"file": value} if is_file else {"name": value}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> "LabelSetConfig":
        given = [k for k in ("name", "file", "labels") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of name, file, labels; got {given or 'none'}")
        return self


class DecodeConfig(Section):
    """How videos become frames, and what a clip may cost."""

    backend: str = Field(
        "auto",
        description="auto, pyav, pyav-fast, pyav-sequential, decord, torchcodec, or your own as module:attribute.",
    )
    short_side: int | None = Field(
        None,
        ge=16,
        le=2160,
        description="Side of the square frames handed to the members; default: the largest a member wants.",
    )
    timeout_s: float = Field(DecodeLimits().timeout_s, gt=0)
    memory_mb: int = Field(DecodeLimits().memory_mb, ge=128)
    max_bytes: int = Field(DecodeLimits().max_bytes, gt=0)
    max_pixels: int = Field(DecodeLimits().max_pixels, gt=0)
    max_duration_s: float = Field(DecodeLimits().max_duration_s, gt=0)
    max_packets: int = Field(DecodeLimits().max_packets, gt=0)
    fetch_timeout_s: float = Field(60.0, gt=0, description="Longest wait for one object.")
    fetch_retries: int = Field(4, ge=0, description="Further tries after the first before a clip becomes fetch_error.")
    range_above_mb: int | None = Field(
        64,
        ge=1,
        description="Of larger MP4 and MOV files only what the frames need is fetched; null: every file whole.",
    )

    @property
    def limits(self) -> DecodeLimits:
        """The decoder's share of this section."""
        return DecodeLimits(
            timeout_s=self.timeout_s,
            memory_mb=self.memory_mb,
            max_bytes=self.max_bytes,
            max_pixels=self.max_pixels,
            max_duration_s=self.max_duration_s,
            max_packets=self.max_packets,
        )


class OutputConfig(Section):
    """What the prediction table holds."""

    unit_clips: int = Field(
        1024, ge=1, le=100_000, description="Clips in a work unit: one Parquet file, committed as one."
    )
    member_logits: bool = Field(False, description="Keep each member's logits (float16 list).")
    member_embeddings: bool = Field(False, description="Keep each member's embedding (float16 list) where it has one.")
    member_context: bool = Field(
        False, description="Keep what new label texts need beside the embedding (X-CLIP: 50 to 200 KB a clip)."
    )
    compression: Literal["zstd", "snappy", "none"] = "zstd"


def ray_address(run: RunConfig) -> str | None:
    """The Ray cluster to join: the config's, else RAY_ADDRESS (set in a submitted job), else None: a private one."""
    return run.ray_address or os.environ.get("RAY_ADDRESS") or None
