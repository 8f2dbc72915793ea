"""What can be wrong with a manifest's rows, found batch by batch and told together."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidcls_batch.errors import ManifestError

SHOWN_ROWS = 5
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(nan|NaN|NAN|inf|Inf|INF|infinity|Infinity)$"


@dataclass(slots=True)
class RowProblems:
    """Rows by kind of problem: the first few numbers of each, and how many there are."""

    _found: dict[str, tuple[int, list[int]]] = field(default_factory=dict)

    def add(self, kind: str, is_bad: pa.Array, *, first_row: int) -> None:
        """Note the rows where `is_bad` is true; null is not."""
        bad = np.flatnonzero(pc.fill_null(is_bad, False).to_numpy(zero_copy_only=False))
        if len(bad):
            count, rows = self._found.get(kind, (0, []))
            missing = SHOWN_ROWS - len(rows)
            self._found[kind] = (count + len(bad), rows + [first_row + int(i) for i in bad[:missing]])

    def raise_any(self, uri: str) -> None:
        """Raise ManifestError with every kind found; does nothing when all rows are good."""
        if self._found:
            lines = [f"  - {_rows(count, rows)}: {kind}" for kind, (count, rows) in self._found.items()]
            raise ManifestError(f"The manifest {uri} has rows that cannot be labeled:\n" + "\n".join(lines))


def check_rows(clips: pa.RecordBatch, *, first_row: int, problems: RowProblems) -> None:
    """Note every row of a batch of clips that cannot be planned."""
    clip_id, uri, start_s, end_s = (clips.column(n) for n in ("clip_id", "uri", "start_s", "end_s"))
    checks = {
        "the clip id is empty; give the row an id, or leave the whole column out to have ids derived": _is_empty(
            clip_id
        ),
        "the uri is empty; fill it in or drop the row": _is_empty(uri),
        "start_s is not a finite number >= 0; leave it empty for the file's start": _is_no_time(start_s),
        "end_s is not a finite number >= 0; leave it empty for the file's end": _is_no_time(end_s),
        "end_s is not after start_s; correct or empty them": pc.less_equal(end_s, pc.fill_null(start_s, 0.0)),
    }
    for kind, is_bad in checks.items():
        problems.add(kind, is_bad, first_row=first_row)


def to_seconds(column: pa.Array, *, name: str, first_row: int, problems: RowProblems) -> pa.Array:
    """A column of times as float64; what is no number is noted and becomes null. Raises ManifestError for a type that
    holds no numbers at all.
    """
    type_ = column.type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        is_number = pc.match_substring_regex(text, _NUMBER)
        problems.add(f"{name} is not a number of seconds", pc.invert(is_number), first_row=first_row)
        return pc.if_else(is_number, text, None).cast(pa.float64())
    if (
        pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_decimal(type_)
        or pa.types.is_null(type_)
    ):
        return column.cast(pa.float64())
    raise ManifestError(f"The manifest's column {name!r} holds {type_}, not seconds. Write it as a number.")


def _is_empty(text: pa.Array) -> pa.Array:
    return pc.or_kleene(pc.is_null(text), pc.equal(pc.utf8_trim_whitespace(text), ""))


def _is_no_time(seconds: pa.Array) -> pa.Array:
    return pc.invert(pc.and_(pc.is_finite(seconds), pc.greater_equal(seconds, 0.0)))


def _rows(count: int, rows: list[int]) -> str:
    numbers = ", ".join(str(r) for r in rows)
    return f"row {numbers}" if count == 1 else f"{count} rows ({numbers}{', …' if count > len(rows) else ''})"
