"""Find the videos below a folder or glob, and write them down as a manifest."""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from vidcls_batch.dataset.clip_ids import derive_clip_ids
from vidcls_batch.errors import ManifestError
from vidcls_batch.storage import StorageOptions, absolute_uri, list_objects, open_store

# Containers people keep videos in; a glob of one's own finds any other name.
VIDEO_EXTENSIONS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".m2ts", ".3gp", ".ogv",
)  # fmt: skip


def has_glob(uri: str) -> bool:
    """Whether the URI is a pattern."""
    return any(c in uri for c in "*?[")


def list_videos(
    prefix: str, *, options: StorageOptions, extensions: tuple[str, ...] = VIDEO_EXTENSIONS
) -> Iterator[tuple[str, int]]:
    """URI and bytes of each video below a folder, or of each object a glob such as s3://b/p/**/*.mp4 matches, whatever
    its extension. Streams, always in the same order; hidden files (`.name`) are left out.

    Raises ManifestError where there is no such folder.
    """
    uri = absolute_uri(prefix)
    folder, pattern = _split_glob(uri)
    matches = re.compile(glob_translate(pattern)).match if pattern else None
    start = len(folder.rstrip("/")) + 1
    try:
        for found in list_objects(folder, options=options):
            relative = found.path[start:]
            if any(part.startswith(".") for part in PurePosixPath(relative).parts):
                continue
            if matches(relative) if matches else relative.lower().endswith(extensions):
                yield found.path, found.num_bytes
    except FileNotFoundError as error:
        raise ManifestError(f"No folder {folder} to look for videos in.") from error


def write_manifest(
    prefix: str, destination: str, *, options: StorageOptions, extensions: tuple[str, ...] = VIDEO_EXTENSIONS
) -> int:
    """List the videos of a folder or glob as `clip_id, uri` rows; returns how many there are.

    Parquet, CSV, JSONL or text by the destination's suffix. Raises ManifestError for another one or for no videos.
    """
    target = PurePosixPath(absolute_uri(destination))
    writer = _WRITERS.get(target.suffix.lower())
    if writer is None:
        raise ManifestError(f"Cannot write a manifest as {target.suffix or target.name!r}; use {', '.join(_WRITERS)}.")
    column = pa.array([uri for uri, _ in list_videos(prefix, options=options, extensions=extensions)], pa.string())
    if len(column) == 0:
        raise ManifestError(
            f"No videos below {prefix}, so there is no manifest to write. Looked for {', '.join(extensions)}; a glob "
            "such as 'folder/**/*.xyz' finds other names."
        )
    table = pa.table({"clip_id": derive_clip_ids(column), "uri": column})
    folder, _, name = absolute_uri(destination).rpartition("/")
    store = open_store(folder or "/", options=options)
    store.create()
    store.put(name, writer(table))
    return int(table.num_rows)


def _split_glob(uri: str) -> tuple[str, str]:
    """The folder before the first wildcard, and the pattern below it ("" for none)."""
    if not has_glob(uri):
        return uri, ""
    parts = uri.split("/")
    first = next(i for i, part in enumerate(parts) if has_glob(part))
    return "/".join(parts[:first]) or "/", "/".join(parts[first:])


def _as_parquet(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _as_csv(table: pa.Table) -> bytes:
    buffer = BytesIO()
    pc_csv.write_csv(table, buffer)
    return buffer.getvalue()


def _as_jsonl(table: pa.Table) -> bytes:
    lines = table.to_pandas().to_json(orient="records", lines=True, force_ascii=False)
    return str(lines).encode()


def _as_text(table: pa.Table) -> bytes:
    return "".join(f"{uri}\n" for uri in table["uri"].to_pylist()).encode()


_WRITERS = {".parquet": _as_parquet, ".csv": _as_csv, ".jsonl": _as_jsonl, ".txt": _as_text}
