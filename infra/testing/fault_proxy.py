"""A proxy before an S3 server that makes of some requests what networks and busy stores make of them."""

import asyncio
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

Kind = Literal["latency", "reset", "slow_down", "internal_error", "truncate", "stall", "lost_reply"]
_HTTP_ERRORS: dict[Kind, tuple[str, str]] = {
    "slow_down": ("503 Slow Down", "SlowDown"),
    "internal_error": ("500 Internal Server Error", "InternalError"),
}
_PIECE_BYTES = 1 << 16


@dataclass(slots=True)
class Fault:
    """What happens to requests whose first line, e.g. `GET /bucket/key HTTP/1.1`, matches.

    `latency`: answered `seconds` later. `reset`: the connection is reset before the server sees the request.
    `truncate`, `stall`: the body ends, or stops coming, after `num_bytes`. `lost_reply`: the server does its work and
    the connection is reset instead of the reply.
    """

    kind: Kind
    match: str
    times: int | None = None  # so many requests; None: all
    seconds: float = 0.0
    num_bytes: int = 0


class FaultProxy:
    """Serves on `endpoint_url` while the context lasts. `faults` may be changed at any time; the first match counts."""

    def __init__(self, *, upstream_port: int) -> None:
        self.faults: list[Fault] = []
        self.hits: Counter[str] = Counter()  # by kind
        self.requests = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._upstream_port = upstream_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    @property
    def endpoint_url(self) -> str:
        """What S3 clients are told."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20), self._loop
        )
        self._server = starting.result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _pick(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times != 0 and re.search(fault.match, line):
                if fault.times is not None:
                    fault.times -= 1
                self.hits[fault.kind] += 1
                return fault
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head, headers = await _read_head(reader)
                line = head.split(b"\r\n")[0].decode("latin1")
                self.requests += 1
                fault = self._pick(line)
                if fault is not None and fault.kind == "reset":
                    _reset(writer)
                    return
                if fault is not None and fault.kind in _HTTP_ERRORS:
                    if "expect" not in headers:  # such a client sends its body when it is told to go on
                        await _pass_body(reader, headers, None)
                    await _refuse(writer, *_HTTP_ERRORS[fault.kind], has_body=not line.startswith("HEAD"))
                    return
                if fault is not None and fault.kind == "latency":
                    await asyncio.sleep(fault.seconds)
                if upstream is None:
                    upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port)
                if not await _forward(line, head, headers, client=(reader, writer), upstream=upstream, fault=fault):
                    return
        except (asyncio.IncompleteReadError, OSError):
            return  # either side hung up
        finally:
            writer.close()
            if upstream is not None:
                upstream[1].close()


async def _forward(
    line: str,
    head: bytes,
    headers: Mapping[str, str],
    *,
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    fault: Fault | None,
) -> bool:
    """One request and its reply; whether the connection can be used again."""
    (reader, writer), (from_server, to_server) = client, upstream
    to_server.write(head)
    await to_server.drain()
    if headers.get("expect", "").lower() == "100-continue":
        reply, reply_headers = await _read_head(from_server)
        writer.write(reply)
        if _status(reply) != 100:  # refused before the body was sent
            await _pass_body(from_server, reply_headers, writer)
            return False
    await _pass_body(reader, headers, to_server)
    reply, reply_headers = await _read_head(from_server)
    while _status(reply) == 100:
        reply, reply_headers = await _read_head(from_server)
    if fault is not None and fault.kind == "lost_reply":
        _reset(writer)
        return False
    writer.write(reply)
    if not line.startswith("HEAD") and _status(reply) not in (204, 304):
        cut = fault is not None and fault.kind in ("truncate", "stall")
        whole = await _pass_body(from_server, reply_headers, writer, limit=fault.num_bytes if fault and cut else None)
        if fault is not None and not whole:
            if fault.kind == "stall":
                await asyncio.sleep(fault.seconds)
            return False
    await writer.drain()
    return reply_headers.get("connection", "").lower() != "close"


async def _read_head(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, str]]:
    head = await reader.readuntil(b"\r\n\r\n")
    pairs = (line.split(":", 1) for line in head.decode("latin1").split("\r\n")[1:] if ":" in line)
    return head, {name.strip().lower(): value.strip() for name, value in pairs}


async def _pass_body(
    reader: asyncio.StreamReader,
    headers: Mapping[str, str],
    writer: asyncio.StreamWriter | None,
    *,
    limit: int | None = None,
) -> bool:
    """Hand a body on, at most `limit` bytes of it; whether that was all."""
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    left = int(headers.get("content-length", 0))
    sent = 0
    while chunked or left > 0:
        if chunked:
            size_line = await reader.readline()
            size = int(size_line.split(b";")[0], 16)
            piece = size_line + await reader.readexactly(size + 2)
            chunked = size > 0
        else:
            piece = await reader.read(min(_PIECE_BYTES, left))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
        if limit is not None and sent + len(piece) > limit:
            if writer is not None:
                writer.write(piece[: limit - sent])
                await writer.drain()
            return False
        sent += len(piece)
        if writer is not None:
            writer.write(piece)
            await writer.drain()
    return True


async def _refuse(writer: asyncio.StreamWriter, status: str, code: str, *, has_body: bool) -> None:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>Please try again.</Message></Error>'.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
    writer.write(head.encode() + b"\r\n\r\n" + (body if has_body else b""))
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    # Closing with zero linger sends RST, not FIN.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _status(head: bytes) -> int:
    return int(head.split(b" ", 2)[1])
