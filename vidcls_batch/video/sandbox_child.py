"""The other side of the sandbox: `python -m vidcls_batch.video.sandbox_child`, started by sandbox.py only.

Two processes. The *nursery* imports the decoder once, then forks a child and waits; when the child dies it says so and
forks the next, which takes milliseconds instead of the imports' tenths of a second. The *child* decodes. Both end when
the process that started them ends, however it ends.
"""

import ctypes
import errno
import gc
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vidcls_batch.errors import ClipError, ConfigError, Stage, Status
from vidcls_batch.types import DecodeLimits, FrameRequest, Frames, Samples, Sampling, SoundWindow
from vidcls_batch.video.decode import decode_into
from vidcls_batch.video.decoders.base import Decoder, OpenClip, make_decoder
from vidcls_batch.video.source import BlockCache, Source

# A child that reached its share of clips ends with this code and is replaced: what a codec library leaks goes with it.
RECYCLED = 64
_CLIPS_PER_CHILD = 1000
_CACHE_BYTES = 16 << 20  # of a file that is read in parts; the parent keeps more
_PR_SET_PDEATHSIG = 1
_MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Setup:
    """What the parent says once, as JSON on the command line."""

    parent_pid: int
    control_fd: int  # nursery -> parent: which child lives, how the last one ended
    jobs_fd: int  # parent <-> child
    source_fd: int  # shared memory: the clip's bytes
    frames_fd: int  # shared memory: the clip's frames
    sound_fd: int | None  # shared memory: the clip's sound, where it is asked for
    backend: str
    num_threads: int
    request: FrameRequest
    limits: DecodeLimits

    @classmethod
    def from_json(cls, text: str) -> "Setup":
        """Inverse of `json.dumps(asdict(setup))`."""
        tree = json.loads(text)
        request = tree.pop("request")
        samplings = tuple(Sampling(**s) for s in request.pop("samplings"))
        sounds = tuple(SoundWindow(**w) for w in request.pop("sounds"))
        made = FrameRequest(samplings, sounds=sounds, **request)
        return cls(**tree | {"request": made, "limits": DecodeLimits(**tree.pop("limits"))})


def send_message(channel: socket.socket, **message: object) -> None:
    """One JSON object on a line of its own."""
    channel.sendall(json.dumps(message).encode() + b"\n")


def main(setup: Setup) -> None:
    """The nursery: load the decoder, then keep one child alive until the parent ends."""
    control = socket.socket(fileno=setup.control_fd)
    parent = os.pidfd_open(setup.parent_pid)
    if os.getppid() != setup.parent_pid:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        decoder = make_decoder(
            setup.backend, height=setup.request.height, width=setup.request.width, num_threads=setup.num_threads
        )
    except ConfigError as error:
        send_message(control, failed=str(error))
        return
    gc.freeze()
    nursery_pid = os.getpid()
    while True:
        pid = os.fork()
        if pid == 0:
            control.close()
            os.close(parent)
            _be_the_child(setup, decoder, nursery_pid)
        send_message(control, started=pid)
        ended = _wait(pid, parent, control)
        if ended is None:
            return
        send_message(control, ended=ended)


def _wait(pid: int, parent: int, control: socket.socket) -> int | None:
    """Exit code of the child, negative for a signal; None when the parent is done or dead, the child killed."""
    child = os.pidfd_open(pid)
    poller = select.poll()
    for fd in (child, parent, control.fileno()):
        poller.register(fd, select.POLLIN)
    wanted = True
    while child not in (ready := {fd for fd, _ in poller.poll()}):
        orders = control.recv(4096) if control.fileno() in ready else b""
        wanted = bool(orders)  # nothing to read: the parent closed its end, or died
        if not wanted or json.loads(orders.splitlines()[-1])["kill"] == pid:
            os.kill(pid, signal.SIGKILL)
            break
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(child)
    return code if wanted else None


def _be_the_child(setup: Setup, decoder: Decoder, nursery_pid: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != nursery_pid:
        os._exit(1)
    channel = socket.socket(fileno=setup.jobs_fd)
    frames: Frames = np.frombuffer(
        mmap.mmap(setup.frames_fd, int(np.prod(setup.request.frames_shape))), np.uint8
    ).reshape(setup.request.frames_shape)
    samples: Samples | None = None
    if setup.sound_fd is not None:
        samples = np.frombuffer(mmap.mmap(setup.sound_fd, 4 * setup.request.num_samples), np.float32)
    start_bytes = _address_space()
    parent = _Parent(channel, channel.makefile("rb"), setup.source_fd)
    for count, job in enumerate(parent.jobs(), start=1):
        in_memory = _CACHE_BYTES if job["ranged"] else job["num_bytes"]
        _limit_address_space(start_bytes + (setup.limits.memory_mb << 20) + in_memory)
        reply = _decode(job, setup, decoder, _Shared(frames, samples), parent)
        _limit_address_space(resource.RLIM_INFINITY)
        send_message(channel, id=job["id"], **reply)
        if count == _CLIPS_PER_CHILD or "recycle" in reply:
            os._exit(RECYCLED)
    os._exit(0)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the parent reads when a clip is done."""

    frames: Frames
    samples: Samples | None


@dataclass(frozen=True, slots=True)
class _Parent:
    """Who gives the jobs, and the bytes."""

    channel: socket.socket
    lines: BinaryIO
    source_fd: int

    def jobs(self) -> Iterator[dict[str, int]]:
        while line := self.lines.readline():
            yield json.loads(line)

    def source(self, job: dict[str, int]) -> Source:
        if not job["ranged"]:
            # Freed when the last view of it goes: an exception may still hold one, and closing would then raise.
            return memoryview(mmap.mmap(self.source_fd, job["num_bytes"], prot=mmap.PROT_READ))
        fetch = partial(self._fetch, job["id"])
        return BlockCache(job["num_bytes"], identity=str(job["id"]), fetch=fetch, capacity_bytes=_CACHE_BYTES)

    def _fetch(self, job: int, start: int, stop: int) -> bytes:
        send_message(self.channel, id=job, need=[start, stop])
        answer = json.loads(self.lines.readline())
        if "failed" in answer:
            raise _clip_error(answer["failed"], Status.FETCH_ERROR, "range_failed")
        return os.pread(self.source_fd, stop - start, 0)


def _decode(job: dict[str, int], setup: Setup, decoder: Decoder, out: _Shared, parent: _Parent) -> dict[str, object]:
    def opened(clip: OpenClip) -> None:
        pixels = (clip.facts.width or 0) * (clip.facts.height or 0)
        send_message(parent.channel, id=job["id"], opened_pixels=pixels * len(clip.pts_s))

    try:
        report = decode_into(
            out.frames,
            parent.source(job),
            decoder=decoder,
            request=setup.request,
            limits=setup.limits,
            start_s=job["start_s"],
            end_s=job["end_s"],
            samples=out.samples,
            opened=opened,
        )
        return {"report": asdict(report)}
    except ClipError as error:
        return _failure(error, recycle=error.status is Status.CRASHED)
    except Exception as unexpected:  # the one place: whatever a decoder raises about a clip is that clip's row
        if isinstance(unexpected, MemoryError) or getattr(unexpected, "errno", None) == errno.ENOMEM:
            message = f"the decoder ran out of memory: {unexpected}"
            return _failure(_clip_error(message, Status.CRASHED, "out_of_memory"), recycle=True)
        message = f"{type(unexpected).__name__}: {unexpected}"
        return _failure(_clip_error(message, Status.DECODE_ERROR, "decoder_raised"), recycle=True)


def _clip_error(message: str, status: Status, code: str) -> ClipError:
    return ClipError(message, status=status, stage=Stage.DECODE, code=code)


def _failure(error: ClipError, *, recycle: bool) -> dict[str, object]:
    fields = {
        "message": error.message[:_MESSAGE_CHARACTERS],
        "status": error.status,
        "stage": error.stage,
        "code": error.code,
    }
    return {"error": fields} | ({"recycle": True} if recycle else {})


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def _limit_address_space(num_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, hard))


if __name__ == "__main__":
    main(Setup.from_json(sys.argv[1]))
