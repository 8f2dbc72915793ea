"""Checkpoints behind fsspec URIs, kept in a local folder: fetched once per node, whole or not at all."""

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vidcls_batch.errors import CheckpointError, StorageError
from vidcls_batch.storage import ObjectInfo, StorageOptions, list_objects, stat_object
from vidcls_batch.storage.faults import read_fault
from vidcls_batch.storage.objects import store_errors
from vidcls_batch.storage.options import open_filesystem


@dataclass(frozen=True, slots=True)
class CachedCopy:
    """A local copy: a folder, or the file itself for a URI of one file. `revision` is a digest of the listing."""

    path: Path
    revision: str


def fetch_once(
    uri: str, *, choose: Callable[[list[str]], list[str]], storage: StorageOptions, cache_dir: Path | None
) -> CachedCopy:
    """Copy the chosen files of the folder (or the one file) at `uri`, unless this version is here already.

    Several processes may ask at once: one fetches, the others wait for it. Raises CheckpointError.
    """
    try:
        objects, single = _objects(uri, storage=storage)
        by_name = {o.path.rstrip("/").rsplit("/", 1)[-1]: o for o in objects}
        wanted = list(by_name) if single else choose(list(by_name))
        if not wanted:
            raise CheckpointError(f"No checkpoint files at {uri}; found {sorted(by_name)[:10] or 'nothing'}")
        revision = _digest({name: [o.num_bytes, o.version] for name, o in by_name.items()})
        cache = cache_dir or Path.home() / ".cache" / "vidcls-batch" / "checkpoints"
        folder = cache / _digest([uri, revision, sorted(wanted)])[:32]
        with _locked(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _download([by_name[name] for name in wanted], folder, storage=storage)
    except (StorageError, OSError) as error:
        raise CheckpointError(f"Cannot get the checkpoint {uri}: {error}") from error
    return CachedCopy(path=folder / wanted[0] if single else folder, revision=revision)


def _objects(uri: str, *, storage: StorageOptions) -> tuple[list[ObjectInfo], bool]:
    """The files directly in the folder `uri`, or the one file it is."""
    try:
        return [stat_object(uri, options=storage)], True
    except (FileNotFoundError, IsADirectoryError):  # on S3 a folder is no object: not found
        depth = uri.rstrip("/").count("/") + 1
        return [o for o in list_objects(uri, options=storage) if o.path.count("/") == depth], False


def _download(objects: list[ObjectInfo], folder: Path, *, storage: StorageOptions) -> None:
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        for found in objects:
            filesystem, path = open_filesystem(found.path, options=storage)
            try:
                filesystem.get_file(path, str(partial / path.rsplit("/", 1)[-1]))
            except store_errors() as error:
                raise read_fault(error, uri=found.path) from error
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # what is left when a download failed


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The kernel drops the lock when its holder dies, so a killed worker never blocks the next one.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
