"""A decoder that misbehaves on clips whose last bytes ask for it; everything else it leaves to PyAV."""

import mmap
import os
import signal
import time
from contextlib import AbstractContextManager

from vidcls_batch.types import DecodeLimits
from vidcls_batch.video.decoders.base import OpenClip
from vidcls_batch.video.decoders.pyav import PlannedDecoder

BACKEND = "tests.video.faulty_decoder:FaultyDecoder"


def with_fault(data: bytes, fault: str) -> bytes:
    return data + f"fault:{fault}".encode()


class FaultyDecoder:
    def __init__(self, *, height: int, width: int, num_threads: int) -> None:
        self._decoder = PlannedDecoder(height=height, width=width, num_threads=num_threads)

    def open(self, data: bytes | memoryview, *, limits: DecodeLimits) -> AbstractContextManager[OpenClip]:
        _, mark, fault = bytes(data[-64:]).partition(b"fault:")
        if mark:
            _FAULTS[fault.decode()]()
        return self._decoder.open(data, limits=limits)


def _eat_memory() -> None:
    eaten = []
    while True:
        eaten.append(mmap.mmap(-1, 64 << 20))


def _raise() -> None:
    raise RuntimeError("boom")


def _complain_and_die() -> None:
    os.write(2, b"assertion failed: the decoder's last words\n")
    os.abort()


_FAULTS = {
    "hang": lambda: time.sleep(1000),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": _complain_and_die,
    "exit": lambda: os._exit(0),
    "memory": _eat_memory,
    "raise": _raise,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}
