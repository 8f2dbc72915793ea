"""hf:// URIs: the extra that is named where it is missing, and the hub's own client against a hub on this machine."""

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fsspec.registry import _registry

from vidcls_batch.dataset.listing import write_manifest
from vidcls_batch.errors import ObjectTooLargeError, StorageError
from vidcls_batch.storage import StorageOptions, list_objects, read_object

CLIPS = {"val/a.mp4": b"the first", "val/b.mp4": b"the second one"}


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client asks for to read the data set me/clips."""

    out_of_order = False

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.out_of_order:
            self._answer(503, b"down", "text/plain")
        elif path in ("/api/datasets/me/clips", "/api/datasets/me/clips/revision/main"):
            self._tell({"_id": "1", "id": "me/clips", "sha": "0" * 40, "private": False, "tags": [], "siblings": []})
        elif path.startswith("/api/datasets/me/clips/tree/main"):
            self._tell([{"type": "file", "path": p, "size": len(d), "oid": "f" * 40} for p, d in CLIPS.items()])
        elif (name := path.removeprefix("/datasets/me/clips/resolve/main/")) in CLIPS:
            self._answer(200, CLIPS[name], "video/mp4")
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _tell(self, facts: object) -> None:
        self._answer(200, json.dumps(facts).encode(), "application/json")

    def _answer(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' output."""


@dataclass(frozen=True)
class Hub:
    server: ThreadingHTTPServer
    handler: type[_Hub]

    @property
    def options(self) -> StorageOptions:
        return StorageOptions(options={"endpoint": f"http://127.0.0.1:{self.server.server_port}", "token": False})


@pytest.fixture
def hub() -> Iterator[Hub]:
    handler = type("OwnHub", (_Hub,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Hub(server, handler)
    server.shutdown()
    server.server_close()


def test_missing_hub_client_is_named_by_its_extra(monkeypatch):
    monkeypatch.delitem(_registry, "hf", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(StorageError, match=r"hf:// needs pip install 'vidcls-batch\[hf\]' here and on each worker"):
        read_object("hf://datasets/me/clips/val/a.mp4", options=StorageOptions())


def test_objects_are_read_and_their_limit_holds(hub):
    assert read_object("hf://datasets/me/clips/val/a.mp4", options=hub.options) == b"the first"
    assert read_object("hf://datasets/me/clips/val/b.mp4", options=hub.options, max_bytes=14) == b"the second one"
    with pytest.raises(ObjectTooLargeError):
        read_object("hf://datasets/me/clips/val/b.mp4", options=hub.options, max_bytes=13)


def test_listing_makes_a_manifest_of_uris_that_open(hub, tmp_path):
    assert write_manifest("hf://datasets/me/clips/val", str(tmp_path / "clips.jsonl"), options=hub.options) == 2
    uris = [json.loads(line)["uri"] for line in (tmp_path / "clips.jsonl").read_text().splitlines()]
    assert [read_object(uri, options=hub.options) for uri in uris] == list(CLIPS.values())
    assert [o.num_bytes for o in list_objects("hf://datasets/me/clips", options=hub.options)] == [9, 14]


@pytest.mark.parametrize("path", ["me/clips/val/none.mp4", "me/gone/val/a.mp4"])
def test_what_is_not_there_is_missing_and_no_fault_of_the_store(path, hub):
    with pytest.raises(FileNotFoundError):
        read_object(f"hf://datasets/{path}", options=hub.options)


def test_hub_that_is_down_or_gone_is_a_passing_fault(hub):
    hub.handler.out_of_order = True
    with pytest.raises(StorageError, match="503") as caught:
        read_object("hf://datasets/me/clips/val/a.mp4", options=hub.options)
    assert caught.value.transient
    nowhere = StorageOptions(options={"endpoint": "http://127.0.0.1:9", "token": False})
    with pytest.raises(StorageError, match="the connection to the store failed") as caught:
        read_object("hf://datasets/me/clips/val/a.mp4", options=nowhere)
    assert caught.value.transient
