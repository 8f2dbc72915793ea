"""A committed unit as one Parquet file: encode, decode, and what its footer tells without reading the rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidcls_batch.dataset.plan import prediction_path
from vidcls_batch.errors import StorageError
from vidcls_batch.storage import Store

# Keys of the footer that this package writes itself; a run adds its own.
UNIT_KEY = "vidcls.unit"
OWNER_KEY = "vidcls.owner"
STATUSES_KEY = "vidcls.statuses"
FINGERPRINT_KEY = "vidcls.fingerprint"
# Enough for the footer of some 60 columns and a run's provenance; a longer one costs a second read.
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class UnitFooter:
    """What a unit's file says of itself."""

    num_rows: int
    statuses: Mapping[str, int]
    metadata: Mapping[str, str]


def encode_unit(
    rows: pa.Table, *, unit: int, owner: str, fingerprint: str, metadata: Mapping[str, str], compression: str
) -> bytes:
    """The rows as a Parquet file. `owner` makes the bytes this writer's own, so that a commit can tell who won."""
    footer = {
        **metadata,
        UNIT_KEY: str(unit),
        OWNER_KEY: owner,
        FINGERPRINT_KEY: fingerprint,
        STATUSES_KEY: json.dumps(count_statuses(rows)),
    }
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, rows.schema, compression=compression, write_page_checksum=True) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata(footer)
    return bytes(buffer.getvalue())


def count_statuses(rows: pa.Table) -> dict[str, int]:
    """Rows by status, most frequent first."""
    counts = pc.value_counts(rows["status"])
    found = {c["values"]: c["counts"] for c in counts.to_pylist()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def read_predictions(store: Store, unit: int, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The committed rows of a unit, every page's checksum verified. Raises FileNotFoundError when it is not
    committed, StorageError when it is damaged.
    """
    return decode_unit(store.read_bytes(prediction_path(unit)), uri=_uri(store, unit), columns=columns)


def decode_unit(data: bytes, *, uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a unit's file, without its footer's metadata. Raises StorageError when it is damaged."""
    try:
        file = pq.ParquetFile(BytesIO(data), page_checksum_verification=True)
        rows = file.read(columns=None if columns is None else list(columns), use_threads=False)
        return rows.replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{uri} is damaged: {error}. Delete it and run the same command again.") from error


def read_footer(store: Store, unit: int) -> UnitFooter:
    """The footer of a unit's file, by one short read. Raises FileNotFoundError, StorageError when it is damaged."""
    tail = store.read_tail(prediction_path(unit), _TAIL_BYTES)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] == b"PAR1" and len(tail) == _TAIL_BYTES and length > _TAIL_BYTES:
        tail = store.read_tail(prediction_path(unit), length)
    try:
        parquet = pq.read_metadata(BytesIO(tail))
        metadata = {k.decode(): v.decode() for k, v in (parquet.metadata or {}).items() if k != b"ARROW:schema"}
        return UnitFooter(parquet.num_rows, json.loads(metadata[STATUSES_KEY]), metadata)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StorageError(f"{_uri(store, unit)} is damaged: {error}. Delete it and run again.") from error


def _uri(store: Store, unit: int) -> str:
    return f"{store.uri}/{prediction_path(unit)}"
