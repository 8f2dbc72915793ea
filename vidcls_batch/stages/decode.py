"""The CPU stage: clips in, frames and facts out. Nothing a clip does leaves this stage but its row."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vidcls_batch.errors import ClipError, Status
from vidcls_batch.schema import DECODED, ROUTE
from vidcls_batch.stages.fetch import FetchedClip, FetchSettings, fetch_ahead
from vidcls_batch.stages.ranges import ObjectReader
from vidcls_batch.storage import AllowedUris, StorageOptions
from vidcls_batch.types import Clip, DecodeLimits, DecodeReport, FrameRequest, Frames, Samples
from vidcls_batch.video.decoders.base import backend_of
from vidcls_batch.video.sandbox import SandboxedDecoder
from vidcls_batch.video.source import BlockCache, Traffic

CLIPS = pa.schema(
    [
        *ROUTE,
        pa.field("uri", pa.string(), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("attempts", pa.int32(), nullable=False),
    ]
)
FRAMES = "frames"
SOUND = "sound"
SOUND_LENGTHS = "sound_lengths"


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """All that a decode worker needs; travels to the workers."""

    request: FrameRequest
    limits: DecodeLimits
    backend: str
    fetch: FetchSettings
    storage: StorageOptions
    allowed: AllowedUris = field(default_factory=AllowedUris)
    num_threads: int = 1


class BlockDecoder:
    """Decodes blocks of clips in one worker process; owns the worker's decoder child."""

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
        self._deaths: list[dict[str, str]] = []
        self._decoder = SandboxedDecoder(
            settings.request, limits=settings.limits, backend=settings.backend, num_threads=settings.num_threads
        )
        fetch = settings.fetch
        if not backend_of(settings.backend).reads_ranges:
            fetch = replace(fetch, range_above_bytes=None)
        self._read = ObjectReader(
            storage=settings.storage, fetch=fetch, max_bytes=settings.limits.max_bytes, allowed=settings.allowed
        )

    def __call__(self, clips: pa.Table) -> pa.Table:
        """Rows of CLIPS to rows of ROUTE, DECODED, `frames` (uint8 tensor [slots, H, W, 3]) and, where a member hears,
        `sound` (float32 tensor) and `sound_lengths`, in the same order.

        A clip that fails carries black frames, no sound and its status.
        """
        request = self._settings.request
        # One contiguous array per block crosses the object store without a copy; lists of arrays do not.
        frames: Frames = np.zeros((len(clips), *request.frames_shape), np.uint8)
        sound: Samples = np.zeros((len(clips), request.num_samples), np.float32)
        lengths = np.zeros((len(clips), len(request.sounds)), np.int32)
        rows = []
        fetched = fetch_ahead(_clips_of(clips), settings=self._settings.fetch, read=self._read)
        for index, source in enumerate(fetched):
            attempts = clips["attempts"][index].as_py()
            place = _Place(frames[index], sound[index], lengths[index])
            rows.append({"attempts": attempts, **self._decode(source, out=place)})
            clip_id = clips["clip_id"][index].as_py()
            self._deaths += [{"clip_id": clip_id, "status": s, "code": c} for s, c in self._decoder.take_deaths()]
        decoded = pa.Table.from_pylist(rows, schema=DECODED)
        columns = [clips[name] for name in ROUTE.names] + decoded.columns
        tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(frames)
        block = pa.table([*columns, tensor], names=[*ROUTE.names, *DECODED.names, FRAMES])
        return with_sound(block, sound, lengths) if request.sounds else block

    def take_deaths(self) -> list[dict[str, str]]:
        """Decoder children that died or were killed since the last call: clip_id, status, code."""
        deaths, self._deaths = self._deaths, []
        return deaths

    def close(self) -> None:
        """End the decoder child."""
        self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self, source: FetchedClip, *, out: "_Place") -> dict[str, object]:
        row: dict[str, object] = {
            "num_bytes": source.num_bytes,
            "content_hash": source.content_hash,
            "fetch_ms": source.fetch_ms,
        }
        before = _traffic_of(source)
        try:
            if source.error is not None:
                raise source.error
            assert source.data is not None  # FetchedClip holds data or an error
            clip = source.clip
            report = self._decoder.decode(
                source.data, start_s=clip.start_s, end_s=clip.end_s, out=out.frames, samples=out.sound
            )
            out.lengths[...] = report.sound_lengths
            row |= {"status": Status.OK.value} | _report_columns(report)
        except ClipError as error:
            out.frames[...] = 0
            out.sound[...] = 0
            row |= _failure(error)
        after = _traffic_of(source)  # what the decoder asked for on its way
        row["fetch_requests"] = source.requests + after.requests - before.requests
        row["fetched_bytes"] = source.fetched_bytes + after.num_bytes - before.num_bytes
        return row


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one clip goes in its block's arrays."""

    frames: Frames
    sound: Samples
    lengths: NDArray[np.int32]


def tensor_of(block: pa.Table, name: str) -> NDArray[Any]:
    """A tensor column as one array [B, ...], without a copy where the block is one chunk."""
    column = block[name].combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    values: NDArray[Any] = array.to_numpy_ndarray()
    return values


def with_sound(block: pa.Table, sound: Samples, lengths: NDArray[np.int32]) -> pa.Table:
    """The block with each clip's sound, float32 [clips, samples of all windows], and its lengths [clips, windows]."""
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(sound)
    block = block.append_column(SOUND, tensor)
    return block.append_column(SOUND_LENGTHS, pa.FixedShapeTensorArray.from_numpy_ndarray(lengths))


def _clips_of(table: pa.Table) -> list[Clip]:
    names = [f.name for f in fields(Clip)]
    return [Clip(**row) for row in table.select(names).to_pylist()]


def _traffic_of(source: FetchedClip) -> Traffic:
    return replace(source.data.traffic) if isinstance(source.data, BlockCache) else Traffic()


def _failure(error: ClipError) -> dict[str, object]:
    return {
        "status": error.status.value,
        "error_stage": error.stage.value,
        "error_code": error.code,
        "error_message": error.message,
    }


def _report_columns(report: DecodeReport) -> dict[str, object]:
    sections = (report.facts, report.quality)
    columns = {f.name: getattr(section, f.name) for section in sections for f in fields(section)}
    return columns | {"decoder": report.decoder, "decode_ms": report.decode_ms, "audio": report.audio}
