"""A run's folder on an object store: single-part conditional puts, told apart from their own lost replies."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from vidcls_batch.errors import StorageError
from vidcls_batch.storage.faults import http_status, s3_code, store_fault
from vidcls_batch.storage.objects import ObjectInfo, list_objects, read_object, store_errors
from vidcls_batch.storage.options import StorageOptions, open_filesystem, protocol_of

# Above this S3 wants several parts, and servers differ in how they treat conditions on completing those.
_SINGLE_PART_BYTES = 5 << 30
_TRIES = 4
# A store that answers and asks for patience gets more of it, about a minute and a half: a failed commit ends the run.
_TRIES_WHEN_BUSY = 7
_BUSY = (429, 500, 502, 503, 504)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 20.0
_READ_TIMEOUT_S = 300.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A prefix of an object store; see `Store` for the contract."""

    uri: str
    options: StorageOptions = field(default_factory=StorageOptions)

    def create(self) -> None:
        """A prefix needs no making; a bucket is its owner's to make."""

    def read_bytes(self, path: str) -> bytes:
        """A whole object by one GET."""
        uri = self._uri(path)
        with self._explained(path, "read"):
            return _persist(lambda: read_object(uri, options=self.options, timeout_s=_READ_TIMEOUT_S))

    def read_tail(self, path: str, num_bytes: int) -> bytes:
        """The end of an object by one ranged GET."""
        with self._explained(path, "read"):
            filesystem, key = open_filesystem(self._uri(path), options=self.options)
            if protocol_of(self.uri) == "memory":  # reads nothing where the suffix is longer than the object
                return bytes(filesystem.cat_file(key))[-num_bytes:]
            return bytes(filesystem.cat_file(key, start=-num_bytes))

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""
        with self._explained(path, "read"):
            filesystem, key = open_filesystem(self._uri(path), options=self.options)
            return bool(filesystem.isfile(key))

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """All objects below a folder."""
        start = len(self._uri(""))
        found = list_objects(self._uri(prefix).rstrip("/"), options=self.options)
        return [ObjectInfo(o.path[start:], o.num_bytes, o.version) for o in found]

    def put(self, path: str, data: bytes) -> None:
        """One put; object stores replace whole objects."""
        with self._explained(path, "write"):
            self._write(path, data, mode="overwrite")

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """One put with If-None-Match (or what the store calls it)."""
        with self._explained(path, "write"):
            try:
                self._write(path, data, mode="create")
            except store_errors() as error:
                if not _says_exists(error):
                    raise
            else:
                return True
        # The client repeats a put whose reply was lost, and the repeat is refused by our own success.
        return self.read_bytes(path) == data

    def delete(self, path: str) -> None:
        """Remove an object."""
        with self._explained(path, "delete"):
            filesystem, key = open_filesystem(self._uri(path), options=self.options)
            try:
                filesystem.rm_file(key)
            except FileNotFoundError:
                return

    def _write(self, path: str, data: bytes, *, mode: str) -> None:
        if len(data) >= _SINGLE_PART_BYTES:
            raise StorageError(
                f"{self._uri(path)} would be {len(data)} bytes, above what one put takes; lower output.unit_clips"
            )
        filesystem, key = open_filesystem(self._uri(path), options=self.options)
        single_part = {"chunksize": _SINGLE_PART_BYTES} if protocol_of(self.uri) in ("s3", "s3a") else {}

        def write() -> None:
            filesystem.pipe_file(key, data, mode=mode, **single_part)

        _persist(write)

    def _uri(self, path: str) -> str:
        return f"{self.uri.rstrip('/')}/{path}"

    @contextmanager
    def _explained(self, path: str, doing: str) -> Iterator[None]:
        try:
            yield
        except store_errors() as error:
            raise store_fault(error, uri=self._uri(path), doing=doing) from error


def _says_exists(error: BaseException) -> bool:
    # 412 comes as FileExistsError or, where the server does not name the condition, as OSError(22). 409 is Amazon's
    # answer to two conditional puts at the same instant: look who won.
    if isinstance(error, FileExistsError) or s3_code(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
        return True
    return http_status(error) == 412


def _persist(request: Callable[[], T]) -> T:
    """Repeat a request that failed for a reason that passes, on top of the client's own shorter retries."""
    wait_s = _FIRST_WAIT_S
    for tried in range(1, _TRIES_WHEN_BUSY):
        try:
            return request()
        except store_errors() as error:
            fault = store_fault(error, uri="", doing="write")
            if not (isinstance(fault, StorageError) and fault.transient) or _says_exists(error):
                raise
            if tried >= _TRIES and http_status(error) not in _BUSY:
                raise
        except StorageError as error:
            if not error.transient or (tried >= _TRIES and http_status(error) not in _BUSY):
                raise
        time.sleep(wait_s)
        wait_s = min(_LONGEST_WAIT_S, wait_s * 3)
    return request()
