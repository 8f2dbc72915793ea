"""The manifest as one stream of clips: `clip_id, uri, start_s, end_s` and the manifest's other columns unchanged."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidcls_batch.config import ManifestColumns
from vidcls_batch.dataset.clip_ids import DuplicateIds, derive_clip_ids, hash_strings
from vidcls_batch.dataset.manifest_source import ManifestSource
from vidcls_batch.dataset.manifest_tables import FORMATS
from vidcls_batch.dataset.row_checks import SHOWN_ROWS, RowProblems, check_rows, to_seconds
from vidcls_batch.errors import ManifestError

CLIP_SCHEMA = pa.schema(
    [("clip_id", pa.string()), ("uri", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())]
)
# What other tools call the column of paths; only used to suggest.
_URI_NAMES = (
    "path",
    "file",
    "filename",
    "filepath",
    "file_path",
    "video",
    "video_path",
    "url",
    "video_uri",
    "location",
)
_ABSOLUTE = r"^([A-Za-z][A-Za-z0-9+.-]*://|/|~)"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest with its columns told apart; nothing of its rows is held."""

    source: ManifestSource
    columns: ManifestColumns
    file_schema: pa.Schema
    has_clip_id: bool
    has_start: bool
    has_end: bool
    extra_schema: pa.Schema

    @property
    def schema(self) -> pa.Schema:
        """Schema of the batches of clips."""
        return pa.schema([*CLIP_SCHEMA, *self.extra_schema])


def read_header(source: ManifestSource, columns: ManifestColumns, *, reserved: frozenset[str]) -> Manifest:
    """Tell the manifest's columns apart. `reserved` are names of the output's own columns, which others cannot use.

    Raises ManifestError for an unreadable file, a missing column (with the nearest name), or a clash of names.
    """
    if source.is_listing or source.format == "text":
        columns = ManifestColumns()  # these have no names of their own
    texts = frozenset((columns.uri, columns.clip_id, columns.start_s, columns.end_s))
    with _readable(source):
        schema = _common_schema(source, texts)
    names = schema.names
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated:
        raise ManifestError(f"{source.uri}: the columns {repeated} occur more than once; rename or drop them.")
    defaults = ManifestColumns()
    for key in ("uri", "clip_id", "start_s", "end_s"):
        name = getattr(columns, key)
        if name not in names and (key == "uri" or name != getattr(defaults, key)):
            raise ManifestError(_missing_column(source, key, name, names))
    extras = pa.schema([_typed(f) for f in schema if f.name not in texts])
    clashes = sorted(set(extras.names) & (reserved | set(CLIP_SCHEMA.names)))
    if clashes:
        raise ManifestError(
            f"{source.uri}: the columns {clashes} are named like columns of the output. Rename or drop them in the "
            "manifest (or, for a column that holds ids, URIs or times, name it in manifest.columns)."
        )
    return Manifest(
        source, columns, schema, columns.clip_id in names, columns.start_s in names, columns.end_s in names, extras
    )


def check_manifest(manifest: Manifest, *, progress: Callable[[int], None] | None = None) -> int:
    """Read all rows once, without the extra columns, and return their number.

    Raises ManifestError that lists the rows (1 is the first data row) with each kind of problem. Memory: 8 bytes a row.
    """
    problems, duplicates, num_rows = RowProblems(), DuplicateIds(), 0
    for first_row, batch in _numbered(manifest, CLIP_SCHEMA.names, problems):
        check_rows(batch, first_row=first_row, problems=problems)
        duplicates.add(batch.column("clip_id"))
        num_rows = first_row + batch.num_rows - 1
        if progress is not None:
            progress(num_rows)
    if num_rows == 0:
        raise ManifestError(f"The manifest {manifest.source.uri} has no rows, so there is nothing to label.")
    problems.raise_any(manifest.source.uri)
    repeated, extra_rows = duplicates.repeated_hashes()
    if len(repeated):
        _raise_duplicates(manifest, repeated, extra_rows)
    return num_rows


def read_clips(manifest: Manifest) -> Iterator[pa.RecordBatch]:
    """All clips of a checked manifest in order, in batches of `manifest.schema`."""
    for _, batch in _numbered(manifest, manifest.schema.names, RowProblems()):
        yield batch


def _numbered(manifest: Manifest, names: list[str], problems: RowProblems) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Normalised batches with the number of their first row; times that are no number are noted and become null."""
    needed = [n for n in manifest.file_schema.names if n in _file_columns(manifest, names)]
    reader = FORMATS[manifest.source.format]
    first_row = 1
    for file in manifest.source.files:
        batches = reader.batches_of(file, manifest.file_schema, needed)
        while True:
            with _readable(manifest.source):
                batch = next(batches, None)
            if batch is None:
                break
            if batch.num_rows:
                yield first_row, _normalised(manifest, batch, names, first_row=first_row, problems=problems)
                first_row += batch.num_rows


def _file_columns(manifest: Manifest, names: list[str]) -> set[str]:
    columns = manifest.columns
    own = {columns.uri, columns.clip_id, columns.start_s, columns.end_s}
    return own | {n for n in names if n in manifest.extra_schema.names}


def _normalised(
    manifest: Manifest, batch: pa.RecordBatch, names: list[str], *, first_row: int, problems: RowProblems
) -> pa.RecordBatch:
    columns, rows = manifest.columns, batch.num_rows
    uri = _absolute(_as_text(manifest, batch, columns.uri), manifest.source.base)
    times = {}
    for name, present in ((columns.start_s, manifest.has_start), (columns.end_s, manifest.has_end)):
        column = batch.column(name) if present else pa.nulls(rows, pa.float64())
        times[name] = to_seconds(column, name=name, first_row=first_row, problems=problems)
    start_s, end_s = times[columns.start_s], times[columns.end_s]
    if manifest.has_clip_id:
        clip_id = _as_text(manifest, batch, columns.clip_id)
    else:
        clip_id = derive_clip_ids(uri, start_s=start_s, end_s=end_s)
    extras = [
        batch.column(n).cast(manifest.extra_schema.field(n).type) for n in names if n in manifest.extra_schema.names
    ]
    own = [clip_id, uri, start_s, end_s]
    return pa.record_batch(own + extras, schema=manifest.schema if extras else CLIP_SCHEMA)


def _as_text(manifest: Manifest, batch: pa.RecordBatch, name: str) -> pa.Array:
    column = batch.column(name)
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    if is_text or pa.types.is_null(type_) or (pa.types.is_integer(type_) and name == manifest.columns.clip_id):
        return column.cast(pa.string())
    raise ManifestError(f"{manifest.source.uri}: the column {name!r} holds {type_}, not text. Write it as text.")


def _absolute(uri: pa.Array, base: str) -> pa.Array:
    """Relative paths are taken from the manifest's folder, so that a dataset can be moved as a whole."""
    is_relative = pc.invert(pc.match_substring_regex(uri, _ABSOLUTE))
    is_named = pc.and_(is_relative, pc.not_equal(pc.utf8_trim_whitespace(uri), ""))
    if not pc.any(is_named).as_py():
        return uri
    return pc.if_else(is_named, pc.binary_join_element_wise(base.rstrip("/"), uri, "/"), uri)


def _common_schema(source: ManifestSource, texts: frozenset[str]) -> pa.Schema:
    schema_of = FORMATS[source.format].schema_of
    schema: pa.Schema = schema_of(source.files[0], texts)
    for file in source.files[1:]:
        other = schema_of(file, texts)
        if not other.equals(schema):
            raise ManifestError(
                f"{source.uri}: {file.name} has other columns or types than {source.files[0].name}:\n{other}\nagainst\n"
                f"{schema}\nWrite all files of a manifest with one schema."
            )
    return schema


def _typed(field: pa.Field) -> pa.Field:
    # A column without a single value has no type; text is what every reader of the output can take.
    plain = field.remove_metadata().with_nullable(True)
    return plain.with_type(pa.string()) if pa.types.is_null(field.type) else plain


def _missing_column(source: ManifestSource, key: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1) or [n for n in names if n.lower() in _URI_NAMES and key == "uri"]
    hint = f" Did you mean manifest.columns.{key}={near[0]}?" if near else f" Set manifest.columns.{key}."
    return f"{source.uri} has no column {name!r} ({key} of the clips). Its columns: {names}.{hint}"


@contextmanager
def _readable(source: ManifestSource) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        empty = "Empty CSV file" in reason
        raise ManifestError(
            f"The manifest {source.uri} {'is empty' if empty else f'cannot be read as {source.format}: {reason}'}. "
            "Check the file, or set manifest.format."
        ) from error


def _raise_duplicates(manifest: Manifest, repeated: NDArray[np.uint64], extra_rows: int) -> None:
    """Compare the ids behind equal hashes; stops at the first few that really are equal."""
    first_seen: dict[str, int] = {}
    found: list[str] = []
    names = CLIP_SCHEMA.names
    for first_row, batch in _numbered(manifest, names, RowProblems()):
        ids = batch.column("clip_id")
        for index in np.flatnonzero(np.isin(hash_strings(ids), repeated)):
            clip_id, row = ids[int(index)].as_py(), first_row + int(index)
            if clip_id not in first_seen:
                first_seen[clip_id] = row
                continue
            uri = batch.column("uri")[int(index)].as_py()
            found.append(f"rows {first_seen[clip_id]} and {row}: {clip_id if manifest.has_clip_id else uri!r}")
            if len(found) == SHOWN_ROWS:
                break
        if len(found) == SHOWN_ROWS:
            break
    if found:
        what = "clip ids occur" if manifest.has_clip_id else "clips (the same uri, start_s and end_s) occur"
        raise ManifestError(
            f"{manifest.source.uri}: {what} more than once; {extra_rows} rows are too many ({'; '.join(found)}"
            f"{'; …' if extra_rows > len(found) else ''}). Each row needs an id of its own: drop or rename these."
        )
