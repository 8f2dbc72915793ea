"""A manifest is untrusted: what its URIs may name, and what they reach in spite of a good name."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from vidcls_batch.config import parse_config
from vidcls_batch.errors import ObjectTooLargeError, StorageError, UriNotAllowedError
from vidcls_batch.stages.fetch import FetchSettings, retried
from vidcls_batch.stages.ranges import ObjectReader
from vidcls_batch.storage import AllowedUris, StorageOptions, read_object

ON_A_CLUSTER = AllowedUris(anything=False)


def reader(allowed: AllowedUris) -> ObjectReader:
    return ObjectReader(storage=StorageOptions(), fetch=FetchSettings(), max_bytes=1000, allowed=allowed)


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a.mp4", "gs://b/a", "abfs://c@a/x", "hf://datasets/x/y", "https://example.org/a.mp4"]
)
def test_cluster_run_reads_object_stores_and_web_servers(uri):
    ON_A_CLUSTER.check(uri)


@pytest.mark.parametrize(
    "uri",
    ["/etc/passwd", "file:///etc/passwd", "local:///etc/passwd", "FILE:///etc/passwd", "clips/a.mp4", "memory://a",
     "zip://a::file:///etc/passwd", "simplecache::s3://b/a", "ftp://host/a", "sftp://host/a", "reference://x"],
)  # fmt: skip
def test_cluster_run_reads_nothing_else(uri):
    with pytest.raises(UriNotAllowedError, match=r"manifest\.allow"):
        ON_A_CLUSTER.check(uri)


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [("s3://bucket/clips/a.mp4", "s3://bucket/clips"), ("s3://bucket/clips/a.mp4", "s3://bucket/clips/"),
     ("s3://bucket/x", "s3://bucket"), ("https://HOST/v/a.mp4", "https://host/v"), ("/data/clips/a.mp4", "/data")],
)  # fmt: skip
def test_what_lies_below_a_prefix_is_read(uri, prefix):
    AllowedUris((prefix,), anything=False).check(uri)


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [("s3://bucket/clips-secret/a", "s3://bucket/clips"), ("s3://bucket2/a", "s3://bucket"),
     ("https://host.evil.org/v", "https://host"), ("https://host@evil.org/v", "https://host"),
     ("https://user:pw@host/v", "https://host"), ("http://host/v", "https://host"), ("https://host:81/v", "https://host"),
     ("https://host/v/../admin", "https://host/v"), ("https://host/v/%2e%2e/admin", "https://host/v"),
     ("/data/../etc/passwd", "/data"), ("/etc/passwd", "s3://bucket"), ("s3://bucket/a", "/")],
)  # fmt: skip
def test_what_only_looks_like_it_is_not(uri, prefix):
    with pytest.raises(UriNotAllowedError):
        AllowedUris((prefix,)).check(uri)


def test_link_that_leads_out_of_an_allowed_folder_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").symlink_to(tmp_path / "secret")
    with pytest.raises(UriNotAllowedError):
        AllowedUris((str(tmp_path / "clips"),)).check(str(tmp_path / "clips" / "a.mp4"))


@pytest.fixture
def web_server():
    """Serves its own private address; /away redirects there under another name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/secret")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"secret")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_cluster_run_reaches_no_private_address(web_server, host):
    with pytest.raises(UriNotAllowedError, match="private address"):
        reader(ON_A_CLUSTER)(f"http://{host}:{web_server}/a.mp4")


@pytest.mark.parametrize("uri", ["http://169.254.169.254/latest/meta-data/iam/", "http://[fd00:ec2::254]/latest/"])
def test_metadata_services_are_not_asked(uri):
    attempt = retried(lambda: reader(ON_A_CLUSTER)(uri), name=uri, settings=FetchSettings())
    assert attempt.error is not None
    assert (attempt.error.code, attempt.tries) == ("uri_not_allowed", 1)


def test_redirect_into_the_private_network_is_not_followed(web_server, monkeypatch):
    # A public server, as far as the check can tell: its name is the one that is allowed to be private.
    real = socket.getaddrinfo

    def lookup(host, *args, **kwargs):
        return real("127.0.0.2" if host in ("public.test", b"public.test") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    server = HTTPServer(("127.0.0.2", 0), type("H", (BaseHTTPRequestHandler,), {
        "do_GET": lambda self: (
            self.send_response(302),
            self.send_header("Location", f"http://127.0.0.1:{web_server}/secret"),
            self.end_headers(),
        ),
        "log_message": lambda self, *_: None,
    }))  # fmt: skip
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        allowed = AllowedUris((f"http://public.test:{server.server_port}",))
        with pytest.raises(UriNotAllowedError, match=r"127\.0\.0\.1"):
            reader(allowed)(f"http://public.test:{server.server_port}/a.mp4")
    finally:
        server.shutdown()


def test_private_server_is_read_when_it_is_allowed_and_by_runs_on_this_machine(web_server):
    uri = f"http://127.0.0.1:{web_server}/a.mp4"
    assert bytes(reader(AllowedUris((uri,), anything=False))(uri)) == b"secret"
    assert bytes(reader(AllowedUris())(uri)) == b"secret"


def test_size_limit_still_holds(tmp_path):
    (tmp_path / "big").write_bytes(bytes(1001))
    with pytest.raises(ObjectTooLargeError):
        reader(AllowedUris((str(tmp_path),)))(str(tmp_path / "big"))


@pytest.mark.parametrize(("uri", "extra"), [("gs://bucket/a.mp4", "gcs"), ("abfs://container/a.mp4", "azure")])
def test_missing_store_package_is_named_by_its_extra(uri, extra):
    with pytest.raises(StorageError, match=rf"vidcls-batch\[{extra}\]"):
        read_object(uri, options=StorageOptions())


def test_config_takes_prefixes():
    tree = {"run": "r", "manifest": {"path": "m.csv", "allow": ["s3://bucket/clips"]}, "label_set": ["a", "b"]}
    member = {"name": "m", "family": "videomae", "checkpoint": "x"}
    assert parse_config(tree | {"members": [member]}).manifest.allow == ("s3://bucket/clips",)
