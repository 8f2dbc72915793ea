"""Manifest files as streams of Arrow batches with one schema from the first row to the last.

Each format has a `schema_of(file)`, which may read the file once to be sure of its types, and a
`batches_of(file, schema, columns)`. Memory is bounded by a block, never by the file.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from vidcls_batch.errors import ManifestError

BATCH_ROWS = 1 << 16
BLOCK_BYTES = 8 << 20
SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class TableFormat:
    """How one file format is read. `texts` are columns to keep as written, where the format has no types."""

    schema_of: Callable[[Path, frozenset[str]], pa.Schema]
    batches_of: Callable[[Path, pa.Schema, list[str]], Iterator[pa.RecordBatch]]


def _parquet_schema(file: Path, _texts: frozenset[str]) -> pa.Schema:
    return pq.read_schema(file).remove_metadata()


def _parquet_batches(file: Path, _schema: pa.Schema, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file) as opened:
        yield from opened.iter_batches(batch_size=BATCH_ROWS, columns=columns, use_threads=False)


# --- CSV: no types of its own. A column is a number or a truth value when all of its values are; else it is text. ---

_CSV_TYPES = (pa.int64(), pa.float64(), pa.bool_())
# 007 is a name and not seven; a number of 16 digits or more would lose some of them as a float.
_LEADING_ZERO = r"^\s*[+-]?0[0-9]"
_TOO_LONG_FOR_FLOAT = r"^\s*[+-]?[0-9]{16,}"


def _csv_schema(file: Path, texts: frozenset[str]) -> pa.Schema:
    names = _csv_names(file)
    as_text = pa.schema([(name, pa.string()) for name in names])
    if len(set(names)) < len(names):
        return as_text  # to be refused
    possible = {name: list(_CSV_TYPES) for name in names if name not in texts}
    filled: set[str] = set()
    if possible:
        for batch in _csv_batches(file, as_text, list(possible)):
            for name, types in possible.items():
                column = batch.column(name)
                if column.null_count < len(column):
                    filled.add(name)
                    types[:] = [t for t in types if _all_are(column, t)]
    chosen = {name: types[0] if types and name in filled else pa.string() for name, types in possible.items()}
    return pa.schema([(name, chosen.get(name, pa.string())) for name in names])


def _all_are(column: pa.Array, type_: pa.DataType) -> bool:
    try:
        column.cast(type_)
    except pa.ArrowInvalid:
        return False
    if pa.types.is_boolean(type_):
        return True
    misread = _LEADING_ZERO if pa.types.is_integer(type_) else f"{_LEADING_ZERO}|{_TOO_LONG_FOR_FLOAT}"
    return not pc.any(pc.match_substring_regex(column, misread)).as_py()


def _csv_names(file: Path) -> list[str]:
    with _csv_reader(file, pc_csv.ConvertOptions(), []) as reader:
        return list(reader.schema.names)


def _csv_batches(file: Path, schema: pa.Schema, columns: list[str]) -> Iterator[pa.RecordBatch]:
    bad_rows: list[pc_csv.InvalidRow] = []
    convert = pc_csv.ConvertOptions(
        include_columns=columns,
        column_types={name: schema.field(name).type for name in columns},
        strings_can_be_null=True,
        null_values=[""],
    )
    with _csv_reader(file, convert, bad_rows) as reader:
        yield from reader
    if bad_rows:
        shown = "; ".join(_explain_row(row) for row in bad_rows[:SHOWN_ROWS])
        raise ManifestError(
            f"{file.name}: {len(bad_rows)} rows do not have the header's number of fields ({shown}). Quote fields that "
            "hold the delimiter."
        )


def _explain_row(row: pc_csv.InvalidRow) -> str:
    number = row.number - 1 if row.number else "?"  # the parser counts the header
    return f"row {number} has {row.actual_columns} fields, not {row.expected_columns}: {row.text[:80]!r}"


def _csv_reader(
    file: Path, convert: pc_csv.ConvertOptions, bad_rows: list[pc_csv.InvalidRow]
) -> pc_csv.CSVStreamingReader:
    def skip(row: pc_csv.InvalidRow) -> str:
        bad_rows.append(row)
        return "skip"

    is_tabbed = ".tsv" in file.suffixes
    return pc_csv.open_csv(
        pa.input_stream(file),
        # One thread: only then does the parser know the number of a row it refuses.
        read_options=pc_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        parse_options=pc_csv.ParseOptions(
            delimiter="\t" if is_tabbed else ",", newlines_in_values=True, invalid_row_handler=skip
        ),
        convert_options=convert,
    )


# --- JSON lines: types by value, so they can differ from block to block. ---


def _jsonl_schema(file: Path, _texts: frozenset[str]) -> pa.Schema:
    merged = pa.schema([])
    for first_row, block in _line_blocks(file):
        found = pa.schema(
            [f.with_type(_without_timestamps(f.type)) for f in _parse_json(file, first_row, block).schema]
        )
        try:
            merged = pa.unify_schemas([merged, found], promote_options="permissive")
        except pa.ArrowTypeError as error:
            last_row = first_row + block.count(b"\n") - 1
            raise ManifestError(
                f"{file.name}: a column changes its type by row {last_row}: {error}. Give each column one type."
            ) from error
    return pa.schema([f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in merged])


def _jsonl_batches(file: Path, schema: pa.Schema, columns: list[str]) -> Iterator[pa.RecordBatch]:
    wanted = pa.schema([schema.field(name) for name in columns])
    for first_row, block in _line_blocks(file):
        yield from _parse_json(file, first_row, block, wanted).select(columns).to_batches()


def _parse_json(file: Path, first_row: int, block: bytes, schema: pa.Schema | None = None) -> pa.Table:
    options = pa_json.ParseOptions(
        explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
    )
    read = pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        return pa_json.read_json(pa.BufferReader(block), read_options=read, parse_options=options)
    except pa.ArrowInvalid as error:
        raise ManifestError(_explain_json(file, first_row, block, error)) from error


def _explain_json(file: Path, first_row: int, block: bytes, error: pa.ArrowInvalid) -> str:
    for offset, line in enumerate(block.splitlines()):
        try:
            parsed = json.loads(line)
        except ValueError as reason:
            return f"{file.name}: row {first_row + offset} is not JSON ({reason}): {line[:80]!r}"
        if not isinstance(parsed, dict):
            return f"{file.name}: row {first_row + offset} is not a JSON object: {line[:80]!r}"
    last_row = first_row + block.count(b"\n") - 1
    return f"{file.name}: a column changes its type within rows {first_row} to {last_row}: {error}. Give it one type."


def _without_timestamps(type_: pa.DataType) -> pa.DataType:
    """JSON has no times: what only looks like one stays the text it is."""
    if pa.types.is_timestamp(type_):
        return pa.string()
    if pa.types.is_list(type_):
        return pa.list_(_without_timestamps(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([f.with_type(_without_timestamps(f.type)) for f in type_])
    return type_


def _line_blocks(file: Path) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole, non-blank lines with the number of their first row."""
    row = 1
    with pa.input_stream(file) as stream:
        rest = b""
        while data := stream.read(BLOCK_BYTES):
            head, newline, tail = (rest + data).rpartition(b"\n")
            rest = tail
            if newline and (block := _without_blank_lines(head)):
                yield row, block
                row += block.count(b"\n")
        if block := _without_blank_lines(rest):
            yield row, block


def _without_blank_lines(block: bytes) -> bytes:
    lines = [line for line in block.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    return b"\n".join(lines) + b"\n" if lines else b""


# --- Text: one URI a line. ---


def _text_schema(_file: Path, _texts: frozenset[str]) -> pa.Schema:
    return pa.schema([("uri", pa.string())])


def _text_batches(file: Path, schema: pa.Schema, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for first_row, block in _line_blocks(file):
        lines = [line.strip() for line in block.splitlines()]
        try:
            uris = pa.array([line.decode() for line in lines], pa.string())
        except UnicodeDecodeError as error:
            raise ManifestError(f"{file.name}: a line from row {first_row} on is not UTF-8 text: {error}") from error
        yield pa.record_batch([uris], schema=schema).select(columns)


FORMATS: dict[str, TableFormat] = {
    "parquet": TableFormat(_parquet_schema, _parquet_batches),
    "csv": TableFormat(_csv_schema, _csv_batches),
    "jsonl": TableFormat(_jsonl_schema, _jsonl_batches),
    "text": TableFormat(_text_schema, _text_batches),
}
