"""The parent's half of decoding a file in parts: the child, which has no network, says which bytes it needs."""

import os
import socket
import time
from contextlib import suppress

from vidcls_batch.errors import ClipError, Stage, Status
from vidcls_batch.video.sandbox_child import send_message
from vidcls_batch.video.source import MOST_BYTES_AT_ONCE, BlockCache

# A decoder that seeks back and forth over more than the cache holds would fetch for ever.
_MOST_READINGS = 4


class RangeServer:
    """Answers the child's needs for one clip through the shared memory of its source."""

    def __init__(self, source: bytes | BlockCache, *, jobs: socket.socket, source_fd: int) -> None:
        self._source, self._jobs, self._source_fd = source, jobs, source_fd
        self._asked_bytes = 0
        self._failure: ClipError | None = None

    def answer(self, start: int, stop: int) -> float:
        """Fetch and hand over; seconds it took, which are not the decoder's."""
        began = time.monotonic()
        try:
            data = self._fetch(start, stop)
        except ClipError as error:
            self._failure = error
            answer: dict[str, object] = {"failed": error.message}
        else:
            put_source(self._source_fd, data)
            answer = {"got": len(data)}
        with suppress(OSError):  # the child died while it waited: news of that is on its way
            send_message(self._jobs, **answer)
        return time.monotonic() - began

    def raise_failure(self) -> None:
        """Whatever the child made of missing bytes: they could not be had. Raises ClipError."""
        if self._failure is not None:
            raise self._failure

    def _fetch(self, start: int, stop: int) -> bytes:
        source = self._source
        if not isinstance(source, BlockCache) or not 0 <= start < stop <= len(source):
            raise _refused(f"the decoder asked for bytes {start} to {stop}", code="bad_range")
        self._asked_bytes += stop - start
        if stop - start > MOST_BYTES_AT_ONCE or self._asked_bytes > _MOST_READINGS * len(source):
            raise _refused(f"the decoder asked for {self._asked_bytes} bytes of {len(source)}", code="too_many_reads")
        source.expect(start, stop, until=stop)
        return source[start:stop]


def put_source(fd: int, data: bytes) -> None:
    """Make `data` the content of a memory file."""
    os.ftruncate(fd, len(data))
    view, written = memoryview(data), 0
    while written < len(view):  # one write moves at most 2 GiB
        written += os.pwrite(fd, view[written:], written)


def _refused(message: str, *, code: str) -> ClipError:
    return ClipError(message, status=Status.DECODE_ERROR, stage=Stage.DECODE, code=code)
