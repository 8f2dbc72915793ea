"""A decoder that misbehaves on clips that ask for it: each fault is a mark at the end of the file."""

import os
import signal
import time
from contextlib import AbstractContextManager

import psutil

from vidcls_batch.types import DecodeLimits
from vidcls_batch.video.decoders.base import OpenClip
from vidcls_batch.video.decoders.pyav import PlannedDecoder

MARK = b"vidcls-fault:"
# Any fault may go on with `:`, a clip's number, `:` and a file to note each decode in; this one does nothing else.
TALLY = "tally:"
FAULT_BYTES = 512
BACKEND = "worker_faults:FaultyDecoder"


def with_fault(data: bytes, fault: str) -> bytes:
    """The same MP4 with a `free` box behind it that carries the mark."""
    payload = MARK + fault.encode()
    return data + (8 + len(payload)).to_bytes(4, "big") + b"free" + payload


class FaultyDecoder:
    def __init__(self, *, height: int, width: int, num_threads: int) -> None:
        assert num_threads == 1, "each worker decodes with the threads its one CPU is worth"
        self._decoder = PlannedDecoder(height=height, width=width, num_threads=num_threads)

    def open(self, data: bytes | memoryview, *, limits: DecodeLimits) -> AbstractContextManager[OpenClip]:
        _, mark, fault = bytes(data[-FAULT_BYTES:]).partition(MARK)
        if mark:
            name, *tally = fault.decode().split(":")
            if tally:
                number, path = tally
                with open(path, "a") as decodes:  # noqa: PTH123
                    decodes.write(f"{number}\n")
            FAULTS[name]()
        return self._decoder.open(data, limits=limits)


def _hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # like a decoder stuck in C: only SIGKILL helps
    while True:
        time.sleep(1)


def _kill_worker() -> None:
    for ancestor in psutil.Process().parents():
        if ancestor.name().startswith("ray::"):
            ancestor.kill()
            time.sleep(60)


FAULTS = {
    "hang": _hang,
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "kill-worker": _kill_worker,
    "slow": lambda: time.sleep(0.5),
    "tally": lambda: None,
}
