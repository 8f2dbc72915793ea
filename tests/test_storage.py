"""Stores: what a reader and a committer may rely on, the same on local disk, S3 and in memory."""

import multiprocessing
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest
from s3fs import S3FileSystem

from tests.s3 import S3Server
from vidcls_batch.config import RunConfig
from vidcls_batch.errors import ObjectTooLargeError, StorageError
from vidcls_batch.storage import (
    ObjectInfo,
    StorageOptions,
    Store,
    absolute_uri,
    list_objects,
    open_store,
    read_object,
    storage_options,
)
from vidcls_batch.storage.store import check_put_if_absent

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["local", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        opened = open_store(f"{server.uri}/runs/one", options=StorageOptions(endpoint_url=server.endpoint_url))
    else:
        uri = str(tmp_path / "runs" / "one") if request.param == "local" else "memory://runs/one"
        opened = open_store(uri, options=StorageOptions())
    opened.create()
    return opened


def options_of(store: Store) -> StorageOptions:
    return getattr(store, "options", StorageOptions())


def test_put_read_replace_delete(store: Store) -> None:
    store.put("a/b.bin", b"one")
    assert store.read_bytes("a/b.bin") == b"one"
    store.put("a/b.bin", b"two")
    assert store.read_bytes("a/b.bin") == b"two"
    assert store.exists("a/b.bin")
    assert not store.exists("a")
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    with pytest.raises(FileNotFoundError):
        store.read_bytes("a/b.bin")


def test_first_creator_wins_and_the_second_is_told(store: Store) -> None:
    assert store.put_if_absent("unit.bin", b"first")
    assert not store.put_if_absent("unit.bin", b"second")
    assert store.read_bytes("unit.bin") == b"first"


def test_creating_the_same_bytes_again_counts_as_won(store: Store) -> None:
    assert store.put_if_absent("unit.bin", b"mine")
    assert store.put_if_absent("unit.bin", b"mine")


def test_the_tail_of_an_object(store: Store) -> None:
    store.put("x", bytes(range(100)))
    assert store.read_tail("x", 3) == bytes([97, 98, 99])
    assert store.read_tail("x", 1000) == bytes(range(100))


def test_list_is_recursive_relative_and_empty_for_no_such_folder(store: Store) -> None:
    for path in ("p/a.bin", "p/deep/b.bin", "q/c.bin"):
        store.put(path, b"12345")
    assert [(o.path, o.num_bytes) for o in store.list("p")] == [("p/a.bin", 5), ("p/deep/b.bin", 5)]
    assert len(store.list()) == 3
    assert store.list("nothing") == []


def test_listing_a_folder_while_files_in_it_come_and_go(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "run"), options=StorageOptions())
    store.create()
    store.put("f/stays", b"")
    stop = Event()

    def churn() -> None:
        while not stop.is_set():
            (tmp_path / "run" / "f" / "goes").touch()
            (tmp_path / "run" / "f" / "goes").unlink()

    churner = Thread(target=churn)
    churner.start()
    try:
        for _ in range(500):
            assert "f/stays" in [o.path for o in store.list("f")]
    finally:
        stop.set()
        churner.join()


def test_a_prefix_is_a_folder_and_not_the_start_of_a_name(store: Store) -> None:
    store.put("plan/a", b"")
    store.put("plan-old/b", b"")
    assert [o.path for o in store.list("plan")] == ["plan/a"]


def test_a_store_works_pickled_in_threads_and_after_a_fork(store: Store) -> None:
    store.put("x", b"value")
    assert pickle.loads(pickle.dumps(store)).read_bytes("x") == b"value"
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store.read_bytes("x"), range(32))) == {b"value"}
    queue = FORK.Queue()
    child = FORK.Process(target=lambda: queue.put(store.read_bytes("x")))
    child.start()
    assert queue.get(timeout=60) == b"value"
    child.join()


def test_read_object_gives_the_whole_object_or_says_why_not(store: Store) -> None:
    store.put("clips/a.mp4", b"x" * 1000)
    uri, options = f"{store.uri}/clips/a.mp4", options_of(store)
    assert read_object(uri, options=options) == b"x" * 1000
    assert read_object(uri, options=options, max_bytes=1000) == b"x" * 1000
    with pytest.raises(ObjectTooLargeError, match="1000 bytes; allowed are 999") as caught:
        read_object(uri, options=options, max_bytes=999)
    assert caught.value.num_bytes == 1000
    with pytest.raises(FileNotFoundError):
        read_object(f"{store.uri}/clips/b.mp4", options=options)


def test_reading_a_folder_or_a_forbidden_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_object(str(tmp_path), options=StorageOptions())
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"x")
    secret.chmod(0)
    script = (
        "import os, sys; os.setuid(65534); sys.path.insert(0, sys.argv[2])\n"
        "from vidcls_batch.storage import StorageOptions, read_object\n"
        "try: read_object(sys.argv[1], options=StorageOptions())\n"
        "except PermissionError as error: print('refused', error.filename)"
    )
    if os.getuid() == 0:  # root may read anything: look as nobody
        tmp_path.chmod(0o755)
        for folder in (tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(0o755)
        script = script.replace("os.setuid(65534);", "").replace(
            "try: read", "os.setuid(65534)\ntry: read"
        )  # imports first: nobody need not be able to read the virtual environment
    else:
        script = script.replace("os.setuid(65534);", "")
    done = subprocess.run(
        [sys.executable, "-c", script, str(secret), str(Path.cwd())], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"refused {secret}"


@pytest.fixture
def web() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = {"/clip.mp4": 200, "/forbidden": 403, "/busy": 503}.get(self.path, 404)
            self.send_response(status)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 1000)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_clip_on_a_web_server_is_read_or_says_why_not(web: str) -> None:
    assert read_object(f"{web}/clip.mp4", options=StorageOptions()) == b"x" * 1000
    with pytest.raises(ObjectTooLargeError):
        read_object(f"{web}/clip.mp4", options=StorageOptions(), max_bytes=999)
    with pytest.raises(FileNotFoundError):
        read_object(f"{web}/none.mp4", options=StorageOptions())
    with pytest.raises(PermissionError):
        read_object(f"{web}/forbidden", options=StorageOptions())
    with pytest.raises(StorageError) as caught:
        read_object(f"{web}/busy", options=StorageOptions())
    assert caught.value.transient


def test_a_server_that_stalls_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        options = StorageOptions(endpoint_url=f"http://127.0.0.1:{port}", options={"anon": True})
        started = time.monotonic()
        for uri in (f"http://127.0.0.1:{port}/clip.mp4", "s3://bucket/clip.mp4"):
            with pytest.raises(StorageError, match="no answer in time") as caught:
                read_object(uri, options=options, timeout_s=0.5)
            assert caught.value.transient
        assert time.monotonic() - started < 10


def test_s3_read_is_one_request(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    options = StorageOptions(endpoint_url=s3_server.endpoint_url)
    open_store(s3_server.uri, options=options).put("clip.mp4", b"x" * (56 << 20))
    calls: list[str] = []
    original = S3FileSystem._call_s3

    async def counted(self: S3FileSystem, method: str, *args: object, **kwargs: object) -> object:
        calls.append(method)
        return await original(self, method, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "_call_s3", counted)
    assert len(read_object(f"{s3_server.uri}/clip.mp4", options=options, max_bytes=1 << 30)) == 56 << 20
    assert calls == ["get_object"]


def test_s3_listing_reads_every_page(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"{s3_server.uri}/many", options=StorageOptions(endpoint_url=s3_server.endpoint_url))
    for number in range(10):
        store.put(f"f/{number:05d}", b"")
    original = S3FileSystem.call_s3
    pages: list[str] = []

    def in_small_pages(self: S3FileSystem, method: str, **request: object) -> object:
        pages.append(method)
        return original(self, method, MaxKeys=3, **request)

    monkeypatch.setattr(S3FileSystem, "call_s3", in_small_pages)
    assert [o.path for o in store.list("f")] == [f"f/{i:05d}" for i in range(10)]
    assert pages == ["list_objects_v2"] * 4


@pytest.mark.parametrize("act", [lambda s: s.put("x", b"1"), lambda s: s.put_if_absent("x", b"1"), lambda s: s.list()])
def test_a_missing_bucket_is_an_error_with_the_next_step(s3_server: S3Server, act: object) -> None:
    store = open_store("s3://no-such-bucket/run", options=StorageOptions(endpoint_url=s3_server.endpoint_url))
    with pytest.raises(StorageError, match="bucket does not exist at this endpoint; create it"):
        act(store)  # type: ignore[operator]


def test_a_missing_bucket_is_no_missing_object(s3_server: S3Server) -> None:
    store = open_store("s3://no-such-bucket/run", options=StorageOptions(endpoint_url=s3_server.endpoint_url))
    with pytest.raises(StorageError, match="bucket does not exist"):
        store.read_bytes("plan/plan.json")


def test_a_wrong_endpoint_is_transient_and_named(s3_server: S3Server) -> None:
    with pytest.raises(StorageError, match="nothing answers at the endpoint; check endpoint_url") as caught:
        read_object("s3://bucket/clip.mp4", options=StorageOptions(endpoint_url="http://127.0.0.1:9"))
    assert caught.value.transient


def test_no_credentials_is_a_permission_error_that_says_what_to_set(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    S3FileSystem.clear_instance_cache()
    options = StorageOptions(endpoint_url=s3_server.endpoint_url)
    with pytest.raises(PermissionError, match="set AWS_ACCESS_KEY_ID"):
        read_object(f"{s3_server.uri}/clip.mp4", options=options)
    with pytest.raises(StorageError, match="set AWS_ACCESS_KEY_ID"):
        open_store(s3_server.uri, options=options).put("x", b"")


def test_a_lost_reply_to_a_commit_is_no_defeat(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(s3_server.uri, options=StorageOptions(endpoint_url=s3_server.endpoint_url))
    original = S3FileSystem._call_s3
    lost = iter([True])

    async def lose_one_reply(self: S3FileSystem, method: str, *args: object, **kwargs: object) -> object:
        reply = await original(self, method, *args, **kwargs)
        if method == "put_object" and next(lost, False):
            raise ConnectionResetError(104, "reply lost")
        return reply

    monkeypatch.setattr(S3FileSystem, "_call_s3", lose_one_reply)
    assert store.put_if_absent("unit.bin", b"token-of-mine rows")
    assert store.read_bytes("unit.bin") == b"token-of-mine rows"


def test_a_server_that_ignores_if_none_match_is_refused(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = open_store(s3_server.uri, options=StorageOptions(endpoint_url=s3_server.endpoint_url))
    check_put_if_absent(store, folder="plan")
    assert store.list() == []
    original = S3FileSystem._call_s3

    async def ignore(self: S3FileSystem, method: str, *args: object, **kwargs: object) -> object:
        kwargs.pop("IfNoneMatch", None)
        return await original(self, method, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "_call_s3", ignore)
    with pytest.raises(StorageError, match="ignores If-None-Match"):
        check_put_if_absent(store, folder="plan")


def _race(store: Store, barrier: object, name: str, rounds: int, wins: object) -> None:
    won = []
    for number in range(rounds):
        barrier.wait()  # type: ignore[attr-defined]
        if store.put_if_absent(f"race/{number}", f"{name} {number}".encode() * 2000):
            won.append(number)
    wins.put(won)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_of_eight_racing_processes_exactly_one_wins(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    options, uri, rounds = StorageOptions(), str(tmp_path / "run"), 40
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        options, uri, rounds = StorageOptions(endpoint_url=server.endpoint_url), f"{server.uri}/run", 5
    store = open_store(uri, options=options)
    store.create()
    barrier, wins = FORK.Barrier(8), FORK.Queue()
    racers = [FORK.Process(target=_race, args=(store, barrier, f"racer{i}", rounds, wins)) for i in range(8)]
    for racer in racers:
        racer.start()
    won = [number for _ in racers for number in wins.get(timeout=120)]
    for racer in racers:
        racer.join()
    assert sorted(won) == list(range(rounds))
    for number in range(rounds):
        data = store.read_bytes(f"race/{number}")
        assert data == data[: len(data) // 2000] * 2000  # one writer's bytes, whole


def test_of_eight_racing_threads_exactly_one_wins(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "run"), options=StorageOptions())
    store.create()
    barrier = Barrier(8)

    def race(name: int) -> list[bool]:
        won = []
        for number in range(40):
            barrier.wait()
            won.append(store.put_if_absent(f"race/{number}", f"{name}".encode() * 3000))
        return won

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(race, range(8)))
    assert [sum(column) for column in zip(*wins, strict=True)] == [1] * 40


WRITER = """
import sys
from vidcls_batch.storage import StorageOptions, open_store
store = open_store(sys.argv[1], options=StorageOptions())
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    store.put_if_absent(f"units/{number:06d}", bytes([number % 251]) * 600_000)
    store.put("run.json", bytes([number % 251]) * 1_000_000)
    number += 1
"""


def test_a_writer_killed_at_any_instant_leaves_only_whole_objects(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "run"), options=StorageOptions())
    store.create()
    for attempt in range(6):
        written = len(store.list("units"))
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, store.uri, str(written)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.003 + 0.012 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    units = store.list("units")
    assert units
    assert {o.num_bytes for o in units} == {600_000}
    for found in units:
        assert set(store.read_bytes(found.path)) == {int(found.path[-6:]) % 251}
    assert len(store.list()) == len(units) + store.exists("run.json")
    assert len(set(store.read_bytes("run.json"))) == 1


def test_a_write_the_disk_refuses_is_explained_and_works_later(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "run"), options=StorageOptions())
    store.create()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for write in (store.put, store.put_if_absent):
            with pytest.raises(StorageError, match=r"size limit.*run the same command again"):
                write("big", b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.list() == []
    assert not any(p.is_file() for p in tmp_path.rglob("*"))
    assert store.put_if_absent("big", b"x" * 200_000)


def test_a_full_disk_tells_the_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "run"), options=StorageOptions())
    store.create()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"disk is full \(\d+ MB free on .*\); free some space, then run the same"):
        store.put_if_absent("unit", b"x")
    monkeypatch.undo()
    assert store.put_if_absent("unit", b"x")


def test_a_run_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "mount" / "run"), options=StorageOptions())
    for act in (lambda: store.put("x", b""), lambda: store.put_if_absent("x", b""), lambda: store.list("plan")):
        with pytest.raises(StorageError, match=r"is not there\. Was it moved, deleted or unmounted"):
            act()
    assert not (tmp_path / "mount").exists()


def test_relative_uris_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("a/../b.mp4") == str(tmp_path / "b.mp4")
    assert absolute_uri("b.mp4", base="/data/") == "/data/b.mp4"
    assert absolute_uri("s3://x/b.mp4", base="/data") == "s3://x/b.mp4"
    assert open_store("run", options=StorageOptions()).uri == str(tmp_path / "run")


def test_the_endpoint_comes_from_the_config_or_else_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://env:1")
    assert storage_options(RunConfig(path="s3://b/r")).endpoint_url == "http://env:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:1")
    assert storage_options(RunConfig(path="s3://b/r")).endpoint_url == "http://s3:1"
    assert storage_options(RunConfig(path="s3://b/r", endpoint_url="http://cfg:1")).endpoint_url == "http://cfg:1"


def test_a_scheme_nothing_is_installed_for_is_refused() -> None:
    with pytest.raises(StorageError, match="Use a local path, s3://"):
        read_object("nosuch://x/y", options=StorageOptions())


def test_list_objects_gives_uris_that_open(store: Store) -> None:
    store.put("v/a.mp4", b"abc")
    found = list(list_objects(f"{store.uri}/v", options=options_of(store)))
    assert [type(f) for f in found] == [ObjectInfo]
    assert read_object(found[0].path, options=options_of(store)) == b"abc"
