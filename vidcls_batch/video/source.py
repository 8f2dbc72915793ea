"""A clip's bytes, whole in memory or fetched piece by piece, as libav reads them: like a file."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

BLOCK_BYTES = 1 << 18
# One answer to one request: long enough that latency does not matter, short enough to wait for.
MOST_BYTES_AT_ONCE = 4 << 20


class Source(Protocol):
    """Bytes by position: `bytes`, a `memoryview` or a `BlockCache`."""

    def __len__(self) -> int:
        """Bytes in all."""

    def __getitem__(self, part: slice, /) -> "bytes | memoryview":
        """The bytes of `part`, fewer at the end."""


@dataclass(slots=True)
class Traffic:
    """What was asked of a store."""

    requests: int = 0
    num_bytes: int = 0


class BlockCache:
    """An object of which only blocks that are asked for are fetched; the last used ones are kept.

    `fetch(start, stop)` gives the object's bytes in that range, at most `answer_bytes` of them. `identity` names the
    content: the same for the same bytes; `version` is the store's own mark of it.
    """

    def __init__(
        self,
        num_bytes: int,
        *,
        identity: str,
        fetch: Callable[[int, int], bytes],
        capacity_bytes: int,
        block_bytes: int = BLOCK_BYTES,
        answer_bytes: int = MOST_BYTES_AT_ONCE,
    ) -> None:
        self.identity, self.version = identity, ""
        self.traffic = Traffic()
        self._num_bytes, self._fetch = num_bytes, fetch
        self._block_bytes, self._answer_blocks = block_bytes, max(1, answer_bytes // block_bytes)
        # Two answers must fit: a read across the edge of one needs both.
        self._most_blocks = max(capacity_bytes // block_bytes, 2 * self._answer_blocks)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next_expected, self._run_blocks = -1, 1
        self._may_fetch = True

    def __len__(self) -> int:
        return self._num_bytes

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._num_bytes)
        if stop <= start:
            return b""
        numbers = range(start // self._block_bytes, -(-stop // self._block_bytes))
        joined = b"".join([self._block(number) for number in numbers])
        first = start % self._block_bytes
        return joined[first : first + stop - start]

    @property
    def held_bytes(self) -> int:
        """Bytes in memory now."""
        return sum(map(len, self._blocks.values()))

    def expect(self, start: int, stop: int, *, until: int) -> None:
        """Where part of `start` to `stop` is missing, fetch on towards `until` in the same request."""
        first, last = start // self._block_bytes, -(-stop // self._block_bytes)
        if all(n in self._blocks for n in range(first, last)):
            return
        while first in self._blocks:
            first += 1
        most = first + self._answer_blocks
        self._load(first, min(-(-until // self._block_bytes), most))

    @contextmanager
    def without_fetching(self) -> Iterator[None]:
        """Until the end of the block, what was not fetched yet reads as zeros."""
        self._may_fetch = False
        try:
            yield
        finally:
            self._may_fetch = True

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            if not self._may_fetch:
                return bytes(self._block_bytes)
            # Twice as many where reading goes on, one where it jumps.
            goes_on = number == self._next_expected
            self._run_blocks = min(2 * self._run_blocks, self._answer_blocks) if goes_on else 1
            stop = number + 1
            while stop < number + self._run_blocks and stop not in self._blocks:
                stop += 1
            self._load(number, stop)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _load(self, first: int, stop: int) -> None:
        start_byte, stop_byte = first * self._block_bytes, min(stop * self._block_bytes, self._num_bytes)
        if start_byte >= stop_byte:
            return
        data = self._fetch(start_byte, stop_byte)
        self.traffic.requests += 1
        self.traffic.num_bytes += len(data)
        for at in range(0, len(data), self._block_bytes):
            number = first + at // self._block_bytes
            self._blocks[number] = data[at : at + self._block_bytes]
            self._blocks.move_to_end(number)
        self._next_expected = stop
        while len(self._blocks) > self._most_blocks:
            self._blocks.popitem(last=False)


class SourceFile:
    """A read-only file over a source; bytes in memory are not all copied."""

    def __init__(self, source: Source) -> None:
        self.source: Source = memoryview(source) if isinstance(source, bytes) else source
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer at the end."""
        num_bytes = len(self.source)
        stop = num_bytes if size < 0 else min(num_bytes, self._position + size)
        chunk = bytes(self.source[self._position : stop])
        self._position = max(self._position, stop)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to `offset` from the start (0), here (1) or the end (2)."""
        base = (0, self._position, len(self.source))[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Position in bytes."""
        return self._position
