"""True labels of some clips, as a file that people make."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from vidcls_batch.errors import ConfigError
from vidcls_batch.label_sets import LabelSet

_READERS: dict[str, Callable[..., pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
_SHOWN = 5


def read_truth(path: str | Path, *, label_set: LabelSet, column: str = "label") -> dict[str, int]:
    """Label id by clip id, from a CSV or Parquet file with `clip_id` and `column`; rows without a label are left out.

    Raises ConfigError on a file that cannot be read, on names that are no label or alias, and on clips with two labels.
    """
    reader = _READERS.get(Path(path).suffix)
    if reader is None:
        raise ConfigError(f"The truth file {path} must be .csv or .parquet, with the columns clip_id and {column}")
    try:
        table = reader(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read the truth file {path}: {error}") from error
    for name in ("clip_id", column):
        if name not in table.columns:
            raise ConfigError(f"The truth file {path} has no column {name!r}; it has {', '.join(table.columns)}")
    table = table[table[column].notna()]
    ids = {name: i for i, entry in enumerate(label_set.entries) for name in entry.names}
    labels = table[column].astype(str)
    unknown = sorted(set(labels) - set(ids))
    if unknown:
        raise ConfigError(
            f"The truth file {path}: {_some(unknown)} is no label of {label_set.name}; correct it or add it as an alias"
        )
    found: dict[str, int] = {}
    for clip_id, label in zip(table["clip_id"].astype(str), labels, strict=True):
        if found.setdefault(clip_id, ids[label]) != ids[label]:
            raise ConfigError(f"The truth file {path} gives clip {clip_id!r} two labels; keep one")
    return found


def refuse_unknown_clips(truth: dict[str, int], known: set[str], *, path: str | Path, run: str) -> None:
    """Raise ConfigError when the truth names clips that the run does not hold."""
    unknown = sorted(set(truth) - known)
    if unknown:
        raise ConfigError(
            f"The truth file {path}: {len(unknown)} of its {len(truth)} clips are not in {run}, e.g. {_some(unknown)}"
        )


def _some(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
