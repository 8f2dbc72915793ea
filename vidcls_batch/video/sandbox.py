"""Decoding in a child process that may hang, crash or eat memory without harm to the worker that owns it."""

import hashlib
import warnings
from types import TracebackType

from vidcls_batch.errors import ClipError, Stage, Status
from vidcls_batch.types import DecodeLimits, DecodeReport, FrameRequest, Frames, Samples
from vidcls_batch.video.decoders.base import BACKENDS, backend_label
from vidcls_batch.video.probe import check_num_bytes
from vidcls_batch.video.sandbox_process import DecoderProcess
from vidcls_batch.video.source import BlockCache

_KILLS_UNTIL_QUARANTINE = 2
_MOST_KILLERS_REMEMBERED = 10_000


class SandboxedDecoder:
    """A decoder in a child process, for one worker. Not thread-safe; close it, or use it as a context manager.

    `backend` is a name of decoders.base.BACKENDS, `auto`, or your own decoder as `module:attribute` (a
    decoders.base.DecoderFactory, imported in the child).
    """

    def __init__(
        self, request: FrameRequest, *, limits: DecodeLimits, backend: str = "auto", num_threads: int = 1
    ) -> None:
        self._request, self._limits, self._backend, self._num_threads = request, limits, backend, num_threads
        self._deaths: list[tuple[str, str]] = []
        self._kills: dict[bytes, list[Status]] = {}
        self._process = self._start()
        self._warned = False

    def decode(
        self,
        source: bytes | BlockCache,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        out: Frames,
        samples: Samples | None = None,
    ) -> DecodeReport:
        """Fill `out` (uint8, request.frames_shape) with the frames of the file `source`, fetched whole or as needed,
        and `samples` (float32, [request.num_samples]) with its sound.

        Raises ClipError, and nothing else, for anything a clip does: `timeout`, `crashed`, `too_large`, `no_video`,
        `decode_error`, `fetch_error` (of a part). Raises ConfigError when the backend cannot be loaded.
        """
        check_num_bytes(len(source), limits=self._limits)
        self._refuse_quarantined(source)
        try:
            return self._decode_once(source, start_s, end_s, out, samples)
        except ClipError as error:
            if error.status is not Status.CRASHED or error.code == "out_of_memory":
                raise
        # Once more in a fresh child: the first may have died of what an earlier clip did to it.
        return self._decode_once(source, start_s, end_s, out, samples)

    def take_deaths(self) -> list[tuple[str, str]]:
        """Status and code of each child that died or was killed since the last call, also where a second try worked."""
        deaths, self._deaths = self._deaths, []
        return deaths

    def close(self) -> None:
        """End the child."""
        self._process.close()

    def __enter__(self) -> "SandboxedDecoder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> DecoderProcess:
        return DecoderProcess(self._request, limits=self._limits, backend=self._backend, num_threads=self._num_threads)

    def _decode_once(
        self,
        source: bytes | BlockCache,
        start_s: float | None,
        end_s: float | None,
        out: Frames,
        samples: Samples | None,
    ) -> DecodeReport:
        if not self._process.alive:
            self._process.close()
            self._process = self._start()
        try:
            report = self._process.decode(source, start_s=start_s, end_s=end_s, out=out, samples=samples)
            self._warn_of_substitute(report.decoder)
            return report
        except ClipError as error:
            if error.status in (Status.TIMEOUT, Status.CRASHED):
                self._deaths.append((error.status.value, error.code))
            if error.status in (Status.TIMEOUT, Status.CRASHED) and len(self._kills) < _MOST_KILLERS_REMEMBERED:
                self._kills.setdefault(_digest(source), []).append(error.status)
            raise

    def _warn_of_substitute(self, used: str) -> None:
        asked = self._backend
        if not self._warned and asked in BACKENDS and used != backend_label(asked):
            self._warned = True
            message = f"decoder {asked!r} is known to be wrong for some of the files; these are decoded by {used}"
            warnings.warn(message, stacklevel=4)

    def _refuse_quarantined(self, source: bytes | BlockCache) -> None:
        kills = self._kills.get(_digest(source), []) if self._kills else []
        if len(kills) >= _KILLS_UNTIL_QUARANTINE:
            raise ClipError(
                f"not tried again: these bytes ended the decoder {len(kills)} times",
                status=kills[-1],
                stage=Stage.DECODE,
                code="quarantined",
            )


def _digest(source: bytes | BlockCache) -> bytes:
    content = source.identity.encode() if isinstance(source, BlockCache) else source
    return hashlib.blake2b(content, digest_size=16).digest()
