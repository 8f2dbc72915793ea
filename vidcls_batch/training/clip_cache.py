"""A manifest decoded once: the frames as one uint8 array on disk, mapped into memory, beside their rows."""

import hashlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidcls_batch.errors import ClipError, ManifestError
from vidcls_batch.types import FrameRequest, Frames, Samples
from vidcls_batch.video.decode import decode_in_process

Mask = NDArray[np.bool_]

CACHE_FORMAT = 2  # of the files; others are not read
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedClips:
    """`frames` uint8 [N, T, H, W, 3], `rows` the manifest's rows of the N clips that could be decoded.

    `samples` float32 [N, S] is their sound as the request's one window has it, `lengths` int64 [N] how many are the
    clip's; both empty ([N, 0] and zeros) where no sound was asked for.
    """

    frames: Frames
    rows: pd.DataFrame
    samples: Samples
    lengths: NDArray[np.int64]

    def take(self, keep: Mask) -> "CachedClips":
        """The clips where `keep`, bool [N], is true."""
        if keep.all():
            return self
        return CachedClips(
            frames=self.frames[keep],
            rows=self.rows[keep].reset_index(drop=True),
            samples=self.samples[keep],
            lengths=self.lengths[keep],
        )


def cache_clips(
    manifest: str | Path, *, request: FrameRequest, folder: str | Path, uri_column: str = "uri", threads: int = 1
) -> CachedClips:
    """Decode the manifest's clips into `folder`, or map what an earlier call with the same arguments left there.

    Clips that cannot be decoded are left out and logged. Raises ManifestError when the manifest cannot be read or no
    clip is left.
    """
    manifest = Path(manifest)
    rows = read_rows(manifest)
    _require_column(rows, uri_column, source=str(manifest))
    key = hashlib.sha256(manifest.read_bytes() + repr((request, uri_column, CACHE_FORMAT)).encode()).hexdigest()[:16]
    frames_path, sound_path = Path(folder) / f"{key}.npy", Path(folder) / f"{key}.sound.npy"
    kept_path, lengths_path = Path(folder) / f"{key}.kept.npy", Path(folder) / f"{key}.lengths.npy"
    # This file is written last: where it is, the others are whole.
    if not kept_path.exists():
        frames_path.parent.mkdir(parents=True, exist_ok=True)
        uris = rows[uri_column].tolist()
        kept, lengths = _decode_all(uris, request=request, path=frames_path, sound_path=sound_path, threads=threads)
        np.save(lengths_path, lengths)
        np.save(kept_path, kept)
    kept = np.load(kept_path)
    if not kept.any():
        raise ManifestError(f"no clip of {manifest} could be decoded")
    frames: Frames = np.load(frames_path, mmap_mode="r")
    samples: Samples = np.zeros((len(rows), 0), np.float32)
    if request.sounds:
        samples = np.load(sound_path, mmap_mode="r")
    return CachedClips(frames=frames, rows=rows, samples=samples, lengths=np.load(lengths_path)).take(kept)


def read_rows(manifest: str | Path) -> pd.DataFrame:
    """A manifest as a table, CSV or Parquet by its suffix. Raises ManifestError."""
    manifest = Path(manifest)
    try:
        return pd.read_parquet(manifest) if manifest.suffix == ".parquet" else pd.read_csv(manifest)
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot read the manifest {manifest}: {error}") from error


def select_rows(rows: pd.DataFrame, conditions: Mapping[str, str]) -> Mask:
    """True for the rows whose columns have these values. Raises ManifestError when a column or all rows are missing."""
    selected = np.ones(len(rows), dtype=np.bool_)
    for column, value in conditions.items():
        _require_column(rows, column, source="where")
        selected &= (rows[column] == value).to_numpy(dtype=np.bool_)
    if not selected.any():
        raise ManifestError(f"no clip has {dict(conditions)}; check the columns' values")
    return selected


def _require_column(rows: pd.DataFrame, column: str, *, source: str) -> None:
    if column not in rows.columns:
        raise ManifestError(f"{source}: no column {column!r}; there are {', '.join(map(str, rows.columns))}")


def _decode_all(
    uris: list[str], *, request: FrameRequest, path: Path, sound_path: Path, threads: int
) -> tuple[Mask, NDArray[np.int64]]:
    frames = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(uris), *request.frames_shape))
    kept = np.zeros(len(uris), dtype=np.bool_)
    lengths = np.zeros(len(uris), dtype=np.int64)
    samples = None
    if request.sounds:
        shape = (len(uris), request.num_samples)
        samples = np.lib.format.open_memmap(sound_path, mode="w+", dtype=np.float32, shape=shape)

    def decode(index: int) -> None:
        try:
            clip = decode_in_process(Path(uris[index]).read_bytes(), request)
            frames[index] = clip.frames
            if samples is not None:
                samples[index], lengths[index] = clip.samples, clip.report.sound_lengths[0]
            kept[index] = True
        except (ClipError, OSError) as error:
            _log.warning("left out %s: %s", uris[index], error)

    # Threads, since decoding leaves the interpreter lock to others.
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, range(len(uris))))
    frames.flush()
    if samples is not None:
        samples.flush()
    return kept, lengths
