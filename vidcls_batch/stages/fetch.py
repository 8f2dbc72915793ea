"""The bytes of clips, the next ones on their way while the current one is decoded."""

import hashlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from vidcls_batch.errors import (
    ClipError,
    ObjectTooLargeError,
    Stage,
    Status,
    StorageError,
    UriNotAllowedError,
    VidclsError,
)
from vidcls_batch.types import Clip
from vidcls_batch.video.source import BlockCache

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
# What a fetch may take beyond its own timeouts before it is given up on: a read that ignores them (a dead NFS mount, a
# named pipe) must not stall the clips behind it.
_GRACE_S = 10.0
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (FileNotFoundError, "not_found"),
    (PermissionError, "permission"),
    (IsADirectoryError, "is_directory"),
    (NotADirectoryError, "not_found"),
    (TimeoutError, "fetch_timeout"),
    (UriNotAllowedError, "uri_not_allowed"),
    (StorageError, "storage"),
    (VidclsError, "storage"),
    (OSError, "io_error"),
    (ValueError, "bad_uri"),
)
_CAUGHT = tuple(kind for kind, _ in _CODES)


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """How objects are fetched."""

    timeout_s: float = 60.0  # of one try
    retries: int = 4
    clips_ahead: int = 4  # objects on their way or waiting beside the one in use
    bytes_ahead: int = 256 << 20  # no further fetch starts while more than this waits
    range_above_bytes: int | None = None  # objects above this are read in parts where they have an index; None: never
    range_cache_bytes: int = 64 << 20  # kept of each such object, for the next clip of the same file


@dataclass(frozen=True, slots=True)
class Body:
    """An object, and what it took to get so far."""

    data: bytes | BlockCache = field(repr=False)
    requests: int
    num_bytes: int  # on the wire


@dataclass(frozen=True, slots=True)
class FetchedClip:
    """A clip and its bytes, or why there are none."""

    clip: Clip
    data: bytes | BlockCache | None = field(repr=False)
    error: ClipError | None
    num_bytes: int | None
    # SHA-256 of the whole object, hex; of an object read in parts `version:` and the store's ETag or modification time.
    content_hash: str | None
    fetch_ms: float  # from the start of the fetch, retries included, whether or not anyone waited
    requests: int  # sent so far for this clip; none where the clip before it brought the same object
    fetched_bytes: int  # on the wire so far, likewise


def fetch_ahead(
    clips: Sequence[Clip], *, settings: FetchSettings, read: Callable[[str], bytes | Body]
) -> Iterator[FetchedClip]:
    """Each of `clips`, in order, with its bytes; fetches run in threads ahead of the caller.

    `read` gives an object's bytes or raises OSError, ValueError or StorageError (tried again while `transient`) and is
    called from several threads. Neighbours with the same uri share one fetch.
    """
    waiting: deque[tuple[Clip, Future[_Fetched]]] = deque()
    last: Future[_Fetched] | None = None
    upcoming = iter(clips)
    exhausted = False
    while True:
        while not exhausted and len(waiting) <= settings.clips_ahead and _bytes_of(waiting) <= settings.bytes_ahead:
            clip = next(upcoming, None)
            if clip is None:
                exhausted = True
            elif waiting and waiting[-1][0].uri == clip.uri:
                waiting.append((clip, waiting[-1][1]))
            else:
                waiting.append((clip, _start(clip.uri, settings, read)))
        if not waiting:
            return
        clip, future = waiting[0]
        fetched = _await(clip.uri, future, settings)
        waiting.popleft()
        first, last = future is not last, future
        yield FetchedClip(
            clip=clip,
            data=fetched.data,
            error=fetched.error,
            num_bytes=fetched.num_bytes,
            content_hash=fetched.content_hash,
            fetch_ms=fetched.fetch_ms,
            requests=fetched.requests if first else 0,
            fetched_bytes=fetched.fetched_bytes if first else 0,
        )


@dataclass(frozen=True, slots=True)
class _Fetched:
    data: bytes | BlockCache | None
    error: ClipError | None
    num_bytes: int | None
    content_hash: str | None
    fetch_ms: float
    requests: int
    fetched_bytes: int


def _start(uri: str, settings: FetchSettings, read: Callable[[str], bytes | Body]) -> "Future[_Fetched]":
    # A daemon thread for each fetch, not a pool: a pool is joined at exit, and a read that hangs would hang the exit.
    future: Future[_Fetched] = Future()

    def run() -> None:
        try:
            future.set_result(_fetch(uri, settings, read))
        except BaseException as error:
            future.set_exception(error)
            raise

    threading.Thread(target=run, name="vidcls-fetch", daemon=True).start()
    return future


def _await(uri: str, future: "Future[_Fetched]", settings: FetchSettings) -> _Fetched:
    tries = settings.retries + 1
    patience_s = tries * (settings.timeout_s + _LONGEST_PAUSE_S) + _GRACE_S
    try:
        return future.result(patience_s)
    except TimeoutError:
        error = _clip_error(f"{uri} did not come within {patience_s:.0f} s", code="fetch_timeout")
        return _Fetched(None, error, None, None, fetch_ms=patience_s * 1000, requests=tries, fetched_bytes=0)


def _fetch(uri: str, settings: FetchSettings, read: Callable[[str], bytes | Body]) -> _Fetched:
    start = time.perf_counter()
    attempt = retried(partial(read, uri), name=uri, settings=settings)
    found = attempt.value
    if isinstance(found, bytes):
        found = Body(found, requests=1, num_bytes=len(found))
    data = None if found is None else found.data
    return _Fetched(
        data=data,
        error=attempt.error,
        num_bytes=attempt.too_large_bytes if data is None else len(data),
        content_hash=None if data is None else _content_hash(data),
        fetch_ms=(time.perf_counter() - start) * 1000,
        requests=attempt.tries if found is None else attempt.tries - 1 + found.requests,
        fetched_bytes=0 if found is None else found.num_bytes,
    )


def _content_hash(data: bytes | BlockCache) -> str:
    return f"version:{data.version}" if isinstance(data, BlockCache) else hashlib.sha256(data).hexdigest()


@dataclass(slots=True)
class Attempt:
    """How reading ended: a value or an error, and after how many tries."""

    value: bytes | Body | None = None
    error: ClipError | None = None
    tries: int = 0
    too_large_bytes: int | None = None


def retried(read: Callable[[], bytes | Body], *, name: str, settings: FetchSettings) -> Attempt:
    """Read, again while the failure is transient, with growing pauses between."""
    attempt = Attempt()
    for attempt.tries in range(1, settings.retries + 2):
        try:
            attempt.value, attempt.error = read(), None
            break
        except ClipError as final:
            attempt.error = final
            break
        except ObjectTooLargeError as too_large:
            attempt.too_large_bytes = too_large.num_bytes or None
            attempt.error = ClipError(str(too_large), status=Status.TOO_LARGE, stage=Stage.FETCH, code="max_bytes")
            break
        except _CAUGHT as failure:
            code = next(code for kind, code in _CODES if isinstance(failure, kind))
            attempt.error = _clip_error(f"{name}: {failure}", code=code)
            if not _is_transient(failure) or attempt.tries > settings.retries:
                break
            time.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt.tries - 1)) * random.uniform(0.5, 1.0))
    return attempt


def _is_transient(failure: Exception) -> bool:
    return isinstance(failure, ConnectionError | TimeoutError) or (
        isinstance(failure, StorageError) and failure.transient
    )


def _bytes_of(waiting: "deque[tuple[Clip, Future[_Fetched]]]") -> int:
    finished = {id(future): future for _, future in waiting if future.done() and future.exception() is None}
    return sum(_held_bytes(future.result().data) for future in finished.values())


def _held_bytes(data: bytes | BlockCache | None) -> int:
    return 0 if data is None else data.held_bytes if isinstance(data, BlockCache) else len(data)


def _clip_error(message: str, *, code: str) -> ClipError:
    return ClipError(message, status=Status.FETCH_ERROR, stage=Stage.FETCH, code=code)
