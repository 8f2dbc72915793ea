"""Where a manifest lies: its files brought near, with the digest that tells whether it changed."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from vidcls_batch.config import ManifestConfig
from vidcls_batch.dataset.listing import has_glob, list_videos
from vidcls_batch.errors import ManifestError
from vidcls_batch.storage import ObjectInfo, StorageOptions, absolute_uri, list_objects, read_object, stat_object
from vidcls_batch.storage.options import is_local, local_path

Format = Literal["parquet", "csv", "jsonl", "text", "folder"]

# First match wins; compressed text is read as such by its last suffix.
SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
    ".lst": "text",
}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
LISTING_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """A manifest that is ready to read: local files, those of a store as private copies."""

    uri: str  # as configured, absolute
    format: Format  # of the files; a listing became Parquet
    files: tuple[Path, ...]
    base: str  # relative URIs of the rows are taken from here
    digest: str  # of the content; of the listed URIs for a folder or glob
    num_bytes: int
    is_listing: bool


def manifest_version(config: ManifestConfig, *, options: StorageOptions) -> str:
    """A cheap mark of a one-file manifest that changes with its content (size and time or ETag), or ""."""
    uri = absolute_uri(config.path)
    if has_glob(uri):
        return ""
    try:
        info = stat_object(uri, options=options)
    except OSError:
        return ""
    return f"{info.num_bytes}:{info.version}" if info.version else ""


@contextmanager
def open_manifest(config: ManifestConfig, *, options: StorageOptions) -> Iterator[ManifestSource]:
    """The manifest's files, kept for as long as the context lasts. Raises ManifestError, StorageError."""
    uri = absolute_uri(config.path)
    with TemporaryDirectory(prefix="vidcls-manifest-") as folder:
        try:
            source = _snapshot(uri, config, options=options, spool=Path(folder))
        except FileNotFoundError as error:
            raise ManifestError(f"No manifest at {uri} ({error.strerror}). Correct manifest.path.") from error
        except PermissionError as error:
            raise ManifestError(
                f"Cannot read the manifest {uri}: {error.strerror}. Grant read access to it."
            ) from error
        yield source


def _snapshot(uri: str, config: ManifestConfig, *, options: StorageOptions, spool: Path) -> ManifestSource:
    if config.format == "folder" or has_glob(uri):
        return _snapshot_listing(uri, options=options, spool=spool)
    try:
        info = stat_object(uri, options=options)
    except IsADirectoryError:
        return _snapshot_folder(uri, config, options=options, spool=spool)
    except FileNotFoundError:
        if is_local(uri) or _suffix(uri) in SUFFIXES or config.format in ("csv", "jsonl", "text"):
            raise
        # Object stores have no folders to look at: only a listing tells.
        return _snapshot_folder(uri, config, options=options, spool=spool)
    base = uri.rpartition("/")[0]
    return _snapshot_files(uri, [info], _format_of(uri, config), options=options, spool=spool, base=base)


def _snapshot_folder(uri: str, config: ManifestConfig, *, options: StorageOptions, spool: Path) -> ManifestSource:
    """A folder of Parquet files, or else of videos."""
    if config.format in ("auto", "parquet"):
        parquet = [o for o in list_objects(uri, options=options) if _is_table(o.path, uri)]
        if parquet:
            return _snapshot_files(uri, parquet, "parquet", options=options, spool=spool, base=uri)
    if config.format == "auto":
        return _snapshot_listing(uri, options=options, spool=spool)
    raise FileNotFoundError(errno.ENOENT, f"no {config.format} file there", uri)


def _is_table(path: str, folder: str) -> bool:
    names = path[len(folder) :].strip("/").split("/")
    return SUFFIXES.get(Path(path).suffix.lower()) == "parquet" and not any(n.startswith((".", "_")) for n in names)


def _format_of(uri: str, config: ManifestConfig) -> Format:
    if config.format != "auto":
        return config.format
    found = SUFFIXES.get(_suffix(uri))
    if found is None:
        raise ManifestError(
            f"Cannot tell the format of the manifest {uri} by its name. Known: {', '.join(SUFFIXES)}. Rename it, or "
            "set manifest.format to parquet, csv, jsonl, text or folder."
        )
    return found


def _suffix(uri: str) -> str:
    name = Path(uri)
    return (Path(name.stem).suffix if name.suffix.lower() in COMPRESSED else name.suffix).lower()


def _snapshot_files(
    uri: str, objects: list[ObjectInfo], format_: Format, *, options: StorageOptions, spool: Path, base: str
) -> ManifestSource:
    digest = hashlib.sha256()
    files = []
    for number, found in enumerate(objects):
        if is_local(found.path):
            file = local_path(found.path)
        else:
            file = spool / f"{number:06d}-{Path(found.path).name}"
            file.write_bytes(read_object(found.path, options=options, timeout_s=3600))
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
        files.append(file)
    num_bytes = sum(o.num_bytes for o in objects)
    return ManifestSource(uri, format_, tuple(files), base, digest.hexdigest(), num_bytes, is_listing=False)


def _snapshot_listing(uri: str, *, options: StorageOptions, spool: Path) -> ManifestSource:
    digest = hashlib.sha256()
    file = spool / "listing.parquet"
    schema = pa.schema([("uri", pa.string())])
    with pq.ParquetWriter(file, schema) as writer:
        uris: list[str] = []
        for found, _ in list_videos(uri, options=options):
            digest.update(os.fsencode(found) + b"\n")
            uris.append(found)
            if len(uris) == LISTING_ROWS:
                writer.write_table(pa.table({"uri": uris}, schema=schema))
                uris = []
        writer.write_table(pa.table({"uri": uris}, schema=schema))
    return ManifestSource(uri, "parquet", (file,), "", digest.hexdigest(), file.stat().st_size, is_listing=True)
