"""Whether an MP4 or MOV file lists all its frames in one place, apart from their pictures."""

from collections.abc import Iterator

from vidcls_batch.video.source import Source

# ISO/IEC 14496-12 and the QuickTime format. What is not here, `moof` above all, may hold frames of its own.
_PLAIN_BOXES = frozenset(
    {
        b"ftyp",
        b"styp",
        b"pdin",
        b"free",
        b"skip",
        b"wide",
        b"mdat",
        b"moov",
        b"uuid",
        b"udta",
        b"meta",
        b"pnot",
        b"PICT",
    }
)
_MOST_BOXES = 100
# The index of an hour of video with sound takes about 3 MB.
_LARGEST_INDEX = 64 << 20


def index_stands_apart(source: Source) -> bool:
    """Whether `source` is an MP4 or MOV file, whole and not fragmented, whose `moov` box places all its frames."""
    if bytes(source[4:8]) != b"ftyp":
        return False
    boxes = list(_boxes(source, 0, len(source)))
    indexes = [(start, stop) for kind, start, stop in boxes if kind == b"moov"]
    if len(indexes) != 1 or len(boxes) >= _MOST_BOXES or any(kind not in _PLAIN_BOXES for kind, _, _ in boxes):
        return False
    start, stop = indexes[0]
    if boxes[-1][2] != len(source) or stop - start > _LARGEST_INDEX:  # cut off, or too much to keep
        return False
    return all(kind != b"mvex" for kind, _, _ in _boxes(source, start, stop))


def _boxes(source: Source, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte of the content and end of each box between `at` and `end`."""
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        header = bytes(source[at : at + 16])
        size, content = int.from_bytes(header[:4], "big"), at + 8
        if size == 1:  # the size follows in 64 bits
            size, content = int.from_bytes(header[8:16], "big"), at + 16
        elif size == 0:  # the last one, to the end
            size = end - at
        if size < content - at:
            return
        yield header[4:8], content, at + size
        at += size
