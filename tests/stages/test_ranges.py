"""Long files: the stage fetches what the frames need, counts it, and gives the same frames."""

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import s3fs

from tests.video.clips import FPS, Recipe, encode
from vidcls_batch.errors import StorageError
from vidcls_batch.stages.classify import frames_of
from vidcls_batch.stages.decode import CLIPS, BlockDecoder, DecodeSettings
from vidcls_batch.stages.fetch import FetchSettings
from vidcls_batch.storage import StorageOptions
from vidcls_batch.types import DecodeLimits, FrameRequest, Frames, Sampling

REQUEST = FrameRequest((Sampling(2),), 64, 64)
RANGED = FetchSettings(retries=1, timeout_s=20, range_above_bytes=1 << 20)
WHOLE = FetchSettings(retries=1, timeout_s=20)


@cache
def long_clip(container: str = "mp4") -> bytes:
    """About 5 MB in GOPs of a third of a second."""
    options = {"preset": "ultrafast", "crf": "3"}
    return encode(Recipe(container=container, options=options, count=15 * FPS, gop=10, width=320, height=240))


def label(
    *uris: str,
    fetch: FetchSettings = RANGED,
    ranges: list[tuple[float | None, float | None]] | None = None,
    backend: str = "auto",
    storage: StorageOptions | None = None,
    during: Callable[[BlockDecoder], None] = lambda decoder: None,
) -> tuple[list[dict], Frames]:
    settings = DecodeSettings(
        request=REQUEST, limits=DecodeLimits(), backend=backend, fetch=fetch, storage=storage or StorageOptions()
    )
    spans = ranges or [(None, None)] * len(uris)
    rows = [
        {"unit": 0, "clip_id": str(i), "uri": uri, "start_s": start, "end_s": end, "attempts": 1}
        for i, (uri, (start, end)) in enumerate(zip(uris, spans, strict=True))
    ]
    with BlockDecoder(settings) as decoder:
        during(decoder)
        block = decoder(pa.Table.from_pylist(rows, schema=CLIPS))
    return block.drop_columns(["frames"]).to_pylist(), frames_of(block)


@pytest.fixture
def local(tmp_path: Path) -> str:
    path = tmp_path / "long.mp4"
    path.write_bytes(long_clip())
    return str(path)


@pytest.fixture
def on_s3(s3_server) -> str:
    uri = f"s3://{s3_server.bucket}/long.mp4"
    s3fs.S3FileSystem(endpoint_url=s3_server.endpoint_url).pipe_file(uri, long_clip())
    return uri


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves one file, by ranges where `knows_ranges`."""

    knows_ranges = True

    def do_HEAD(self) -> None:
        self._reply(b"", 200, len(long_clip()))

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        if wanted is None or not self.knows_ranges:
            self._reply(long_clip(), 200, len(long_clip()))
            return
        first, last = wanted.removeprefix("bytes=").split("-")
        part = long_clip()[int(first) : int(last) + 1]
        self._reply(part, 206, len(part))

    def _reply(self, body: bytes, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if self.knows_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        with suppress(ConnectionError):  # the reader saw the length and left
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[True, False], ids=["with ranges", "without"])
def on_http(request) -> Iterator[tuple[str, bool]]:
    handler = type("Handler", (_Server,), {"knows_ranges": request.param})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/long.mp4", request.param
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("where", ["local", "on_s3"])
def test_a_long_file_costs_the_bytes_its_frames_need(request, where):
    uri = request.getfixturevalue(where)
    (row,), frames = label(uri)
    (whole,), expected = label(uri, fetch=WHOLE)
    assert row["status"] == whole["status"] == "ok"
    assert np.array_equal(frames, expected)
    assert row["num_bytes"] == whole["num_bytes"] == len(long_clip())
    assert row["fetched_bytes"] < 0.6 * len(long_clip())
    assert 4 <= row["fetch_requests"] <= 10
    assert (whole["fetch_requests"], whole["fetched_bytes"]) == (1, len(long_clip()))
    assert whole["content_hash"] == hashlib.sha256(long_clip()).hexdigest()
    assert row["content_hash"].startswith("version:")
    assert len(row["content_hash"]) > len("version:")


def test_over_http_too_and_whole_where_the_server_has_no_ranges(on_http):
    uri, knows_ranges = on_http
    (row,), frames = label(uri)
    (_,), expected = label(uri, fetch=WHOLE)
    assert row["status"] == "ok"
    assert np.array_equal(frames, expected)
    assert (row["fetched_bytes"] < len(long_clip())) == knows_ranges
    assert row["content_hash"].startswith("version:") == knows_ranges


def test_short_parts_of_one_long_file_share_what_was_fetched(local):
    parts = [(2.0, 2.5), (2.2, 2.7), (12.0, 12.5)]
    rows, frames = label(local, local, local, ranges=parts)
    expected_rows, expected = label(local, local, local, ranges=parts, fetch=WHOLE)
    assert np.array_equal(frames, expected)
    assert [r["frame_pts_s"] for r in rows] == [r["frame_pts_s"] for r in expected_rows]
    assert rows[1]["fetch_requests"] <= 1
    assert sum(r["fetched_bytes"] for r in rows) < 0.6 * len(long_clip())
    assert [r["fetch_requests"] for r in expected_rows] == [1, 0, 0]


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_files_without_an_index_in_one_place_are_fetched_whole(tmp_path, container):
    path = tmp_path / "long"
    path.write_bytes(long_clip(container))
    (row,), _ = label(str(path))
    assert row["status"] == "ok"
    assert row["content_hash"] == hashlib.sha256(long_clip(container)).hexdigest()
    assert row["fetched_bytes"] >= len(long_clip(container))


def test_small_files_and_decoders_that_want_all_bytes_get_one_get(local):
    (small,), _ = label(local, fetch=FetchSettings(range_above_bytes=64 << 20))
    (other,), _ = label(local, backend="pyav-sequential")
    for row in (small, other):
        assert (row["fetch_requests"], row["fetched_bytes"]) == (1, len(long_clip()))


def _fail_after(monkeypatch: pytest.MonkeyPatch, calls: int, error: Exception) -> list[int]:
    from vidcls_batch.storage import read_range

    made: list[int] = []

    def read(uri: str, start: int, stop: int, **rest: object) -> bytes:
        made.append(start)
        if len(made) > calls:
            raise error
        return read_range(uri, start, stop, **rest)

    monkeypatch.setattr("vidcls_batch.stages.ranges.read_range", read)
    monkeypatch.setattr("vidcls_batch.stages.fetch._FIRST_PAUSE_S", 0.01)
    return made


@pytest.mark.parametrize("calls", [3, 4])
def test_a_part_that_cannot_be_had_fails_its_clip_as_a_fetch_and_no_other(local, tmp_path, monkeypatch, calls):
    (tmp_path / "small.mp4").write_bytes(encode(Recipe(options={"preset": "ultrafast"}, count=10)))
    made = _fail_after(monkeypatch, calls, StorageError("503 SlowDown", transient=True))
    (failed, fine), frames = label(local, str(tmp_path / "small.mp4"))
    assert (failed["status"], failed["error_stage"], failed["error_code"]) == ("fetch_error", "fetch", "storage")
    assert "503 SlowDown" in failed["error_message"]
    assert len(made) == calls + 2  # one try more
    assert fine["status"] == "ok"
    assert frames[0].max() == 0


def test_a_file_that_changes_while_it_is_read_is_not_mixed(local, monkeypatch):
    from vidcls_batch.storage import read_range

    made: list[int] = []

    def read(uri: str, start: int, stop: int, **rest: object) -> bytes:
        made.append(start)
        data = read_range(uri, start, stop, **rest)
        if len(made) == 3:  # the decoder has the index
            Path(uri).touch()
        return data

    monkeypatch.setattr("vidcls_batch.stages.ranges.read_range", read)
    (row,), _ = label(local)
    assert row["status"] == "fetch_error"
    assert "changed" in row["error_message"]
