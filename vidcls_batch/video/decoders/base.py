"""What a decoder backend is, and the table of them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.errors import ConfigError
from vidcls_batch.types import DecodeLimits, VideoFacts
from vidcls_batch.video.rescale import Row
from vidcls_batch.video.source import Source


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What happened while frames were read."""

    packet_errors: int = 0
    corrupt: frozenset[int] = field(default_factory=frozenset)  # wanted indices whose picture is damaged


class OpenClip(Protocol):
    """A file that passed the guards and whose frames are counted."""

    @property
    def facts(self) -> VideoFacts:
        """What the header says."""

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """When each frame is on screen, seconds from the start of the file, ascending."""

    @property
    def decoder(self) -> str:
        """The backend at work and its version: `pyav-18.1.0`."""

    def read(self, wanted: Sequence[int], rows: Sequence[Row]) -> ReadReport:
        """Write the frames at the indices `wanted` (ascending, distinct) into `rows`.

        A row is uint8 [height, width, 3], the picture's centre, or a tuple of three: the crops at the start, in the
        centre and at the end of its longer side.

        A frame that cannot be decoded shows what a player would: the one before it. Raises ClipError.
        """


class Decoder(Protocol):
    """One backend, made once per process for one frame size and kept for many files."""

    def open(self, data: Source, *, limits: DecodeLimits) -> AbstractContextManager[OpenClip]:
        """Open a file: `bytes` or a `memoryview`; a `BlockCache` only where the table says `reads_ranges`.

        Raises ClipError.
        """


class DecoderFactory(Protocol):
    """How a backend is made; what `module:attribute` must name."""

    def __call__(self, *, height: int, width: int, num_threads: int) -> Decoder:
        """A decoder that writes frames of `height` x `width`."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A row of the table."""

    name: str
    factory: str  # module:attribute of its DecoderFactory
    distribution: str  # the installed package that decodes
    resampler: str
    reads_ranges: bool = False  # fetches what it needs of a long file; others get it whole


_SWSCALE = "swscale bilinear, YUV scaled then RGB"

BACKENDS: dict[str, Backend] = {
    b.name: b
    for b in (
        Backend("pyav", "vidcls_batch.video.decoders.pyav:PlannedDecoder", "av", _SWSCALE, True),
        Backend("pyav-fast", "vidcls_batch.video.decoders.pyav:FastPlannedDecoder", "av", _SWSCALE, True),
        Backend("pyav-sequential", "vidcls_batch.video.decoders.pyav_sequential:SequentialDecoder", "av", _SWSCALE),
        Backend("decord", "vidcls_batch.video.decoders.decord:DecordDecoder", "decord", _SWSCALE),
        Backend("torchcodec", "vidcls_batch.video.decoders.torchcodec:TorchcodecDecoder", "torchcodec", _SWSCALE),
    )
}
AUTO = "pyav"  # the only one that is exact on every container and installs on every platform


def backend_of(name: str) -> Backend:
    """The table's row for `name`, `auto`, or your own decoder as `module:attribute`. Raises ConfigError."""
    if ":" in name:
        return Backend(name, name, name.partition(".")[0].partition(":")[0], "its own")
    wanted = AUTO if name == "auto" else name
    if wanted not in BACKENDS:
        raise ConfigError(
            f"Unknown decoder backend {name!r}. Known: auto, {', '.join(BACKENDS)}, or your own as 'module:attribute'"
        )
    return BACKENDS[wanted]


def make_decoder(name: str, *, height: int, width: int, num_threads: int = 1) -> Decoder:
    """Load the backend and make its decoder. Raises ConfigError when it is unknown or not installed."""
    backend = backend_of(name)
    module, _, attribute = backend.factory.partition(":")
    try:
        factory: DecoderFactory = getattr(import_module(module), attribute)
        return factory(height=height, width=width, num_threads=num_threads)
    except (ImportError, AttributeError, RuntimeError, OSError) as error:  # torchcodec without FFmpeg: RuntimeError
        raise ConfigError(f"Decoder backend {name!r} cannot be loaded: {error}") from error


def backend_label(name: str) -> str:
    """The name rows carry: `pyav-18.1.0`."""
    backend = backend_of(name)
    return f"{backend.name}-{_version_of(backend.distribution)}"


def decoder_provenance(backend: str) -> dict[str, str]:
    """Name, version and resampler of a backend, for the run's record. Raises ConfigError."""
    row = backend_of(backend)
    return {"name": row.name, "version": _version_of(row.distribution), "resampler": row.resampler}


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
