"""Files that say little and cost much."""

import struct
import zlib

import numpy as np

from tests.video.clips import Recipe, encode
from tests.video.odd_clips import clip


def png(side: int) -> bytes:
    """A black PNG of side x side pixels, a fraction of their size."""
    rows = zlib.compress(bytes(200 * (3 * side + 1)), 1)  # whoever decodes it allocates it whole

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def mp4_that_says(side: int) -> bytes:
    """An MP4 whose sample description claims side x side pixels."""
    data = bytearray(clip("h264"))
    entry = data.index(b"avc1", data.index(b"stsd"))
    data[entry + 28 : entry + 32] = struct.pack(">HH", side, side)
    return bytes(data)


def gif_that_says(side: int) -> bytes:
    """A GIF whose screen claims side x side pixels."""
    data = bytearray(clip("gif"))
    data[6:10] = struct.pack("<HH", side, side)
    return bytes(data)


def slow_slideshow(seconds: int) -> bytes:
    """A picture a minute."""
    return encode(Recipe(options={"preset": "ultrafast"}, count=seconds // 60 + 1, pts=lambda n: n * 60 * 30))


def many_packets(count: int) -> bytes:
    """A Matroska file of `count` packets of one byte each, with nothing in its header to say so."""
    head = clip("h264_mkv_live")
    head = head[: head.index(b"\x1f\x43\xb6\x75")]
    clusters = []
    for first in range(0, count, 30_000):
        ticks = np.arange(min(30_000, count - first), dtype=">i2")
        blocks = np.zeros((len(ticks), 7), np.uint8)
        blocks[:, :3] = (0xA3, 0x85, 0x81)  # SimpleBlock of 5 bytes, track 1
        blocks[:, 3:5] = ticks.view(np.uint8).reshape(-1, 2)
        blocks[:, 5] = 0x80  # key
        body = b"\xe7\x84" + struct.pack(">I", first) + blocks.tobytes()
        clusters.append(b"\x1f\x43\xb6\x75" + struct.pack(">Q", len(body) | 1 << 56) + body)
    return head + b"".join(clusters)
