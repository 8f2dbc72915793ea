"""The decoder's process as its owner sees it: start it, give it a clip, wait, kill it."""

import fcntl
import json
import mmap
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vidcls_batch.errors import ClipError, ConfigError, Stage, Status
from vidcls_batch.types import (
    AudioState,
    DecodeLimits,
    DecodeQuality,
    DecodeReport,
    FrameRequest,
    Frames,
    Samples,
    VideoFacts,
)
from vidcls_batch.video.sandbox_child import RECYCLED, Setup, send_message
from vidcls_batch.video.sandbox_ranges import RangeServer, put_source
from vidcls_batch.video.source import BlockCache

# Of the parent's environment the child gets what an interpreter needs to start; no credentials.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR")
_START_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 5.0
# A clip that hangs should not take the whole timeout when it is short and small: 10 s plus a hundredth of the speed at
# which one busy core decodes H.264.
_LEAST_ALLOWED_S = 10.0
_SLOWEST_PIXELS_PER_S = 2e6
_KEEP_SOURCE_BYTES = 64 << 20
_STDERR_TAIL = 300
_KEEP_STDERR_BYTES = 1 << 20
_READ_BYTES = 1 << 16


def allowed_seconds(*, pixels: int, limits: DecodeLimits) -> float:
    """Wall-clock seconds for a clip of so many pixels in all its frames; never more than `limits.timeout_s`."""
    return min(limits.timeout_s, _LEAST_ALLOWED_S + pixels / _SLOWEST_PIXELS_PER_S)


class DecoderProcess:
    """The nursery and the child it keeps alive (see sandbox_child.py). One clip at a time."""

    def __init__(self, request: FrameRequest, *, limits: DecodeLimits, backend: str, num_threads: int) -> None:
        self._limits = limits
        self.alive = True  # False once the nursery is gone or out of step: make a new one
        self._child_pid: int | None = None
        self._next_job = 0
        self._source_fd = os.memfd_create("vidcls-source")
        self._stderr_fd = os.memfd_create("vidcls-stderr")
        fcntl.fcntl(self._stderr_fd, fcntl.F_SETFL, os.O_APPEND)
        num_frame_bytes = int(np.prod(request.frames_shape))
        self._frames_fd, frames = _shared_memory("vidcls-frames", num_frame_bytes)
        self._frames: Frames = np.frombuffer(frames, np.uint8).reshape(request.frames_shape)
        self._sound_fd: int | None = None
        self._samples: Samples | None = None
        if request.sounds:
            self._sound_fd, samples = _shared_memory("vidcls-sound", 4 * request.num_samples)
            self._samples = np.frombuffer(samples, np.float32)
        self._control, control = socket.socketpair()
        self._jobs, jobs = socket.socketpair()
        self._control_lines, self._job_lines = _Lines(self._control), _Lines(self._jobs)
        setup = Setup(
            parent_pid=os.getpid(),
            control_fd=control.fileno(),
            jobs_fd=jobs.fileno(),
            source_fd=self._source_fd,
            frames_fd=self._frames_fd,
            sound_fd=self._sound_fd,
            backend=backend,
            num_threads=num_threads,
            request=request,
            limits=limits,
        )
        memory = [fd for fd in (self._source_fd, self._frames_fd, self._sound_fd) if fd is not None]
        with control, jobs:
            nursery = subprocess.Popen(
                [sys.executable, "-P", "-m", "vidcls_batch.video.sandbox_child", json.dumps(asdict(setup))],
                pass_fds=(control.fileno(), jobs.fileno(), *memory),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr_fd,
                env=_environment(num_threads),
                start_new_session=True,  # Ctrl-C is for the parent to handle
            )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._jobs, selectors.EVENT_READ)
        memory_files = (*memory, self._stderr_fd)
        channels = (self._selector.close, self._control.close, self._jobs.close)
        closers: tuple[Callable[[], None], ...] = (*channels, *(partial(os.close, fd) for fd in memory_files))
        self._finalizer = weakref.finalize(self, _end, nursery, closers)

    def close(self) -> None:
        """End both processes and free the shared memory. Also happens when the object is dropped."""
        self.alive = False
        self._finalizer()

    def decode(
        self,
        source: bytes | BlockCache,
        *,
        start_s: float | None,
        end_s: float | None,
        out: Frames,
        samples: Samples | None,
    ) -> DecodeReport:
        """Fill `out` and `samples`. Raises ClipError, ConfigError when the decoder cannot be loaded."""
        self._await_child()
        self._forget_old_stderr()
        if isinstance(source, bytes):
            put_source(self._source_fd, source)
        try:
            report = self._await_report(self._send_job(source, start_s, end_s), source)
        finally:
            if len(source) > _KEEP_SOURCE_BYTES:
                os.ftruncate(self._source_fd, 0)
        out[...] = self._frames
        if samples is not None and self._samples is not None:
            samples[...] = self._samples
        return report

    def _forget_old_stderr(self) -> None:
        if os.fstat(self._stderr_fd).st_size > _KEEP_STDERR_BYTES:  # some codec libraries talk with each clip
            os.ftruncate(self._stderr_fd, 0)

    def _send_job(self, source: bytes | BlockCache, start_s: float | None, end_s: float | None) -> int:
        self._next_job += 1
        ranged = isinstance(source, BlockCache)
        job = {"id": self._next_job, "num_bytes": len(source), "ranged": ranged, "start_s": start_s, "end_s": end_s}
        try:
            send_message(self._jobs, **job)
        except OSError:
            self.alive = False
            raise self._crashed(None) from None
        return self._next_job

    def _await_report(self, job: int, source: bytes | BlockCache) -> DecodeReport:
        ranges = RangeServer(source, jobs=self._jobs, source_fd=self._source_fd)
        started = time.monotonic()
        allowed_s = self._limits.timeout_s
        while (left := started + allowed_s - time.monotonic()) > 0:
            for message in self._messages(timeout_s=left):
                if "ended" in message and message["ended"] != RECYCLED:
                    raise self._crashed(message["ended"])
                if message.get("id") != job:
                    continue
                if "opened_pixels" in message:
                    allowed_s = allowed_seconds(pixels=message["opened_pixels"], limits=self._limits)
                elif "need" in message:
                    started += ranges.answer(*message["need"])
                elif "error" in message:
                    ranges.raise_failure()
                    raise _clip_error(message["error"])
                else:
                    ranges.raise_failure()
                    return _report(message["report"])
        self._kill_child()
        raise ClipError(
            f"decoding took longer than {allowed_s:g} s and was killed",
            status=Status.TIMEOUT,
            stage=Stage.DECODE,
            code="decode_timeout",
        )

    def _await_child(self) -> None:
        self._messages(timeout_s=0)  # what happened since the last clip is not this clip's doing
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._child_pid is None:
            if time.monotonic() > deadline:
                self.alive = False
                raise ConfigError(f"the decoder process did not start: {self._stderr_tail() or 'it says nothing'}")
            self._messages(timeout_s=1)

    def _kill_child(self) -> None:
        deadline = time.monotonic() + _END_TIMEOUT_S
        try:
            send_message(self._control, kill=self._child_pid)
            while time.monotonic() < deadline:
                if any("ended" in message for message in self._messages(timeout_s=1)):
                    return
        except (OSError, ClipError):
            pass
        self.alive = False

    def _messages(self, *, timeout_s: float) -> list[dict[str, Any]]:
        """What was said, the child's words before the news of its end. Raises ClipError when the nursery is gone."""
        if not self._selector.select(timeout_s):
            return []
        control = self._control_lines.read()
        jobs = self._job_lines.read()
        for message in control:
            if "failed" in message:
                self.alive = False
                raise ConfigError(message["failed"])
            if "ended" in message:
                self._child_pid = None
                self._job_lines.drop_rest()
            self._child_pid = message.get("started", self._child_pid)
        if self._control_lines.at_end:
            self.alive = False
            raise self._crashed(None)
        return jobs + control

    def _crashed(self, exit_code: int | None) -> ClipError:
        how, code = _describe_exit(exit_code)
        detail = self._stderr_tail()
        return ClipError(
            f"the decoder process {how}" + (f": {detail}" if detail else ""),
            status=Status.CRASHED,
            stage=Stage.DECODE,
            code=code,
        )

    def _stderr_tail(self) -> str:
        size = os.fstat(self._stderr_fd).st_size
        text = os.pread(self._stderr_fd, _STDERR_TAIL, max(0, size - _STDERR_TAIL)).decode(errors="replace")
        return " ".join(text.split())


class _Lines:
    """JSON lines from a socket, without waiting."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._rest = b""
        self.at_end = False

    def read(self) -> list[dict[str, Any]]:
        while not self.at_end:
            try:
                chunk = self._channel.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionError:
                chunk = b""
            self.at_end = not chunk
            self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]

    def drop_rest(self) -> None:
        """Forget a line whose writer died in the middle of it."""
        self._rest = b""


def _shared_memory(name: str, num_bytes: int) -> tuple[int, mmap.mmap]:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, num_bytes)
    # A child gone wild must not shrink it under us: reading past the end of a mapping is SIGBUS.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd, mmap.mmap(fd, num_bytes)


def _environment(num_threads: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(num_threads))
    return kept | threads | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


def _end(nursery: "subprocess.Popen[bytes]", closers: tuple[Callable[[], None], ...]) -> None:
    for close in closers:
        close()  # the nursery sees its channel close, ends the child and itself
    try:
        nursery.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        nursery.kill()
        nursery.wait()


def _describe_exit(exit_code: int | None) -> tuple[str, str]:
    if exit_code is None:
        return "is gone", "process_gone"
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"died of {name}", name.lower()
    return f"ended with code {exit_code}", "process_ended"


def _clip_error(fields: dict[str, str]) -> ClipError:
    return ClipError(
        fields["message"], status=Status(fields["status"]), stage=Stage(fields["stage"]), code=fields["code"]
    )


def _report(tree: dict[str, Any]) -> DecodeReport:
    quality = tree["quality"] | {"frame_pts_s": tuple(tree["quality"]["frame_pts_s"])}
    return DecodeReport(
        facts=VideoFacts(**tree["facts"]),
        quality=DecodeQuality(**quality),
        decoder=tree["decoder"],
        decode_ms=tree["decode_ms"],
        audio=None if tree["audio"] is None else AudioState(tree["audio"]),
        sound_lengths=tuple(tree["sound_lengths"]),
    )
