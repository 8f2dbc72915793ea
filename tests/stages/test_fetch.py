import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from vidcls_batch.errors import ObjectTooLargeError, Status, StorageError
from vidcls_batch.stages.fetch import FetchedClip, FetchSettings, fetch_ahead
from vidcls_batch.types import Clip

NO_PAUSE = FetchSettings(retries=0)


def clips(*uris: str) -> list[Clip]:
    return [Clip(clip_id=str(i), uri=uri) for i, uri in enumerate(uris)]


def fetch(*uris: str, read, settings: FetchSettings = NO_PAUSE) -> list[FetchedClip]:
    return list(fetch_ahead(clips(*uris), settings=settings, read=read))


def test_clips_come_in_order_with_their_bytes_and_hash():
    fetched = fetch(*"abcdefgh", read=lambda uri: (time.sleep(0.01 * (uri < "d")), uri.encode())[1])
    assert [f.clip.clip_id for f in fetched] == list("01234567")
    assert [f.data for f in fetched] == [c.encode() for c in "abcdefgh"]
    assert fetched[0].content_hash == hashlib.sha256(b"a").hexdigest()
    assert all(f.num_bytes == 1 and f.error is None for f in fetched)


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (FileNotFoundError("gone"), Status.FETCH_ERROR, "not_found"),
        (PermissionError("denied"), Status.FETCH_ERROR, "permission"),
        (IsADirectoryError("folder"), Status.FETCH_ERROR, "is_directory"),
        (NotADirectoryError("file/x"), Status.FETCH_ERROR, "not_found"),
        (TimeoutError("slow"), Status.FETCH_ERROR, "fetch_timeout"),
        (StorageError("broken"), Status.FETCH_ERROR, "storage"),
        (OSError("strange"), Status.FETCH_ERROR, "io_error"),
        (ValueError("embedded null byte"), Status.FETCH_ERROR, "bad_uri"),
        (ObjectTooLargeError("huge", num_bytes=7), Status.TOO_LARGE, "max_bytes"),
    ],
)
def test_what_storage_raises_becomes_the_clips_failure(raised, status, code):
    def read(uri: str) -> bytes:
        if uri == "bad":
            raise raised
        return b"good"

    bad, good = fetch("bad", "good", read=read)
    assert bad.error is not None
    assert (bad.error.status, bad.error.code, bad.data, bad.content_hash) == (status, code, None, None)
    assert good.data == b"good"


def test_a_transient_failure_is_tried_again_and_a_lasting_one_is_not():
    tries: list[str] = []

    def read(uri: str) -> bytes:
        tries.append(uri)
        if uri == "flaky" and tries.count("flaky") < 3:
            raise StorageError("503 SlowDown", transient=True)
        if uri == "gone":
            raise FileNotFoundError(uri)
        return b"data"

    flaky, gone = fetch("flaky", "gone", read=read, settings=FetchSettings(retries=4))
    assert flaky.data == b"data"
    assert gone.error is not None
    assert (tries.count("flaky"), tries.count("gone")) == (3, 1)


def test_a_store_that_stays_broken_is_given_up_on_after_the_retries():
    tries = []

    def read(uri: str) -> bytes:
        tries.append(uri)
        raise ConnectionResetError("reset")

    (failed,) = fetch("a", read=read, settings=FetchSettings(retries=2))
    assert failed.error is not None
    assert len(tries) == 3


def test_the_next_clips_are_fetched_while_the_current_one_is_in_use():
    started: list[str] = []
    stream = fetch_ahead(
        clips(*"abcdefgh"),
        settings=FetchSettings(clips_ahead=3),
        read=lambda uri: (started.append(uri), uri.encode())[1],
    )
    next(stream)
    time.sleep(0.1)
    assert sorted(started) == ["a", "b", "c", "d"]


def test_waiting_bytes_are_bounded():
    size, waiting, most = 1 << 20, set(), 0
    lock = threading.Lock()

    def read(uri: str) -> bytes:
        nonlocal most
        with lock:
            waiting.add(uri)
            most = max(most, len(waiting))
        return bytes(size)

    settings = FetchSettings(clips_ahead=16, bytes_ahead=2 * size)
    for fetched in fetch_ahead(clips(*map(str, range(64))), settings=settings, read=read):
        time.sleep(0.002)
        waiting.discard(fetched.clip.uri)
    assert most <= 18


def test_neighbours_from_one_file_share_one_fetch():
    reads: list[str] = []
    fetched = fetch("a", "a", "a", "b", "a", read=lambda uri: (reads.append(uri), uri.encode())[1])
    assert sorted(reads) == ["a", "a", "b"]
    assert [f.data for f in fetched] == [b"a", b"a", b"a", b"b", b"a"]


def test_a_read_that_never_returns_costs_its_clip_only(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("vidcls_batch.stages.fetch._GRACE_S", 0.2)
    monkeypatch.setattr("vidcls_batch.stages.fetch._LONGEST_PAUSE_S", 0.0)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"data")
    settings = FetchSettings(timeout_s=0.2, retries=0)
    paths = (str(tmp_path / name) for name in ("pipe", "file"))
    hung, fine = fetch(*paths, read=lambda uri: Path(uri).read_bytes(), settings=settings)
    assert hung.error is not None
    assert hung.error.code == "fetch_timeout"
    assert fine.data == b"data"


def test_no_thread_stays_behind():
    before = threading.active_count()
    fetch(*map(str, range(50)), read=lambda uri: uri.encode())
    time.sleep(0.1)
    assert threading.active_count() == before
