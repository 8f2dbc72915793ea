"""The bytes of clips, the next ones on their way while the current one is decoded."""

import hashlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from vidcls_batch.errors import ClipError, ObjectTooLargeError, Stage, Status, StorageError, VidclsError
from vidcls_batch.types import Clip

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


@dataclass(frozen=True, slots=True)
class FetchedClip:
    """A clip and its bytes, or why there are none."""

    clip: Clip
    data: bytes | None = field(repr=False)
    error: ClipError | None
    num_bytes: int | None
    content_hash: str | None  # SHA-256 of the whole object, hex
    fetch_ms: float  # from the start of the fetch, retries included, whether or not anyone waited


def fetch_ahead(
    clips: Sequence[Clip], *, settings: FetchSettings, read: Callable[[str], bytes]
) -> Iterator[FetchedClip]:
    """Each of `clips`, in order, with its bytes; fetches run in threads ahead of the caller.

    `read` gives an object's bytes or raises OSError, ValueError or StorageError (tried again while `transient`) and is
    called from several threads. Neighbours with the same uri share one fetch.
    """
    waiting: deque[tuple[Clip, Future[_Fetched]]] = deque()
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
        yield FetchedClip(
            clip=clip,
            data=fetched.data,
            error=fetched.error,
            num_bytes=fetched.num_bytes,
            content_hash=fetched.content_hash,
            fetch_ms=fetched.fetch_ms,
        )


@dataclass(frozen=True, slots=True)
class _Fetched:
    data: bytes | None
    error: ClipError | None
    num_bytes: int | None
    content_hash: str | None
    fetch_ms: float


def _start(uri: str, settings: FetchSettings, read: Callable[[str], bytes]) -> "Future[_Fetched]":
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
        return _Fetched(data=None, error=error, num_bytes=None, content_hash=None, fetch_ms=patience_s * 1000)


def _fetch(uri: str, settings: FetchSettings, read: Callable[[str], bytes]) -> _Fetched:
    start = time.perf_counter()
    data, error, num_bytes = None, None, None
    for attempt in range(settings.retries + 1):
        try:
            data, error = read(uri), None
            break
        except ObjectTooLargeError as too_large:
            num_bytes = too_large.num_bytes or None
            error = ClipError(str(too_large), status=Status.TOO_LARGE, stage=Stage.FETCH, code="max_bytes")
            break
        except _CAUGHT as failure:
            code = next(code for kind, code in _CODES if isinstance(failure, kind))
            error = _clip_error(f"{uri}: {failure}", code=code)
            if not _is_transient(failure) or attempt == settings.retries:
                break
            time.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt) * random.uniform(0.5, 1.0))
    return _Fetched(
        data=data,
        error=error,
        num_bytes=len(data) if data is not None else num_bytes,
        content_hash=hashlib.sha256(data).hexdigest() if data is not None else None,
        fetch_ms=(time.perf_counter() - start) * 1000,
    )


def _is_transient(failure: Exception) -> bool:
    return isinstance(failure, ConnectionError | TimeoutError) or (
        isinstance(failure, StorageError) and failure.transient
    )


def _bytes_of(waiting: "deque[tuple[Clip, Future[_Fetched]]]") -> int:
    finished = {id(future): future for _, future in waiting if future.done() and future.exception() is None}
    return sum(future.result().num_bytes or 0 for future in finished.values())


def _clip_error(message: str, *, code: str) -> ClipError:
    return ClipError(message, status=Status.FETCH_ERROR, stage=Stage.FETCH, code=code)
