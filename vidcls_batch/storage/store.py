"""The folder of a run, wherever it lies."""

import secrets
from typing import Protocol

from vidcls_batch.errors import StorageError
from vidcls_batch.storage.local_store import LocalStore
from vidcls_batch.storage.object_store import ObjectStore
from vidcls_batch.storage.objects import ObjectInfo
from vidcls_batch.storage.options import StorageOptions, absolute_uri, is_local


class Store(Protocol):
    """Whole objects below one folder; paths are relative to it, with `/`.

    Safe to use from threads, after a fork and when pickled into workers. A missing object is a FileNotFoundError; a
    store that cannot do its work (gone, full, refusing) is a StorageError whose message says what to do.
    """

    @property
    def uri(self) -> str:
        """The folder, as a user can open it."""

    def create(self) -> None:
        """Make the folder where it has to be made; all other writes refuse a local folder that is gone."""

    def read_bytes(self, path: str) -> bytes:
        """A whole object."""

    def read_tail(self, path: str, num_bytes: int) -> bytes:
        """The last `num_bytes` of an object, or all of it where it is shorter."""

    def exists(self, path: str) -> bool:
        """Whether the object is there."""

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """All objects below the folder `prefix`, by one listing; empty where there is no such folder."""

    def put(self, path: str, data: bytes) -> None:
        """Write or replace an object: a reader sees the old bytes or the new, never a part."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create an object unless it exists; of racing writers one wins. True when the object now holds `data`.

        Writers whose success must be theirs alone put a token of their own into `data`: a store can lose its reply to
        a write that worked, so only the bytes tell who won.
        """

    def delete(self, path: str) -> None:
        """Remove an object; a missing one is fine."""


def open_store(uri: str, *, options: StorageOptions) -> Store:
    """The store at `uri`: a local path, s3:// or any fsspec URI. Nothing is touched yet."""
    if is_local(uri):
        return LocalStore(uri=absolute_uri(uri))
    return ObjectStore(uri=uri.rstrip("/"), options=options)


def check_put_if_absent(store: Store, *, folder: str) -> None:
    """Raise StorageError when the store lets a second creator overwrite the first, as some S3 servers silently do."""
    token = secrets.token_hex(8)
    probe = f"{folder}/probe-{token}"
    store.put_if_absent(probe, f"first {token}".encode())  # outside of `try`: its own error is the one to tell
    try:
        if store.put_if_absent(probe, f"second {token}".encode()):
            raise StorageError(
                f"The store of {store.uri} ignores If-None-Match: two drivers could overwrite each other's results. "
                "Use one that honours it, such as Amazon S3, Ceph RGW, or a local or shared disk."
            )
    finally:
        store.delete(probe)
