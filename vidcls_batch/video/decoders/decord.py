"""decord, for those who ask for it, where it is known to return the right frames; PyAV's planned decode elsewhere."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.types import DecodeLimits, VideoFacts
from vidcls_batch.video.decoders.base import OpenClip, ReadReport, backend_label
from vidcls_batch.video.decoders.pyav import PlannedClip, PlannedDecoder, starts_groups_with_idr
from vidcls_batch.video.rescale import Rescaler, Row
from vidcls_batch.video.source import Source

if TYPE_CHECKING:
    import decord

# decord 0.6.0 silently returns wrong frames for MPEG-TS, WMV, AVI with B-frames, MPEG-PS, fragmented MP4, MPEG-4 part 2
# with B-frames, open-GOP HEVC and H.264 whose key pictures are not IDR (open GOP, intra refresh); it takes the wrong
# one of several video streams, and has no AV1. What is not on this list was not seen to be right.
_RIGHT_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
_RIGHT_CODECS = frozenset({"h264", "vp9"})


class DecordDecoder:
    """Backend `decord`."""

    def __init__(self, *, height: int, width: int, num_threads: int) -> None:
        import decord

        self._decord = decord
        self._num_threads = num_threads
        self._rescaler = Rescaler(height=height, width=width)
        self._planned = PlannedDecoder(height=height, width=width, num_threads=num_threads)
        self._label = backend_label("decord")

    @contextmanager
    def open(self, data: Source, *, limits: DecodeLimits) -> Iterator[OpenClip]:
        """See Decoder.open. What decord would get wrong is opened by PyAV, and says so."""
        with self._planned.open(data, limits=limits) as clip:
            if isinstance(clip, PlannedClip) and _is_known_right(clip):
                reader = self._reader(data)
                if reader is not None and len(reader) == len(clip.pts_s):
                    yield DecordClip(reader, clip, self._rescaler, self._label, self._decord.DECORDError)
                    return
            yield clip

    def _reader(self, data: Source) -> "decord.VideoReader | None":
        try:
            file = io.BytesIO(bytes(data[0 : len(data)]))
            return self._decord.VideoReader(file, ctx=self._decord.cpu(0), num_threads=self._num_threads)
        except self._decord.DECORDError:
            return None


@dataclass(slots=True)
class DecordClip:
    """A file open in decord; times and facts come from PyAV, which opened it first, behind the guards."""

    reader: "decord.VideoReader"
    planned: PlannedClip
    rescaler: Rescaler
    decoder: str
    failure: type[Exception]

    @property
    def facts(self) -> VideoFacts:
        """See OpenClip.facts."""
        return self.planned.facts

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """See OpenClip.pts_s."""
        return self.planned.pts_s

    def read(self, wanted: Sequence[int], rows: Sequence[Row]) -> ReadReport:
        """See OpenClip.read."""
        from av.video.frame import VideoFrame

        try:
            pictures = self.reader.get_batch(list(wanted)).asnumpy()
        except self.failure:  # it gives up on a file at the first damaged packet
            self.decoder = self.planned.decoder
            return self.planned.read(wanted, rows)
        aspect = self.planned.sample_aspect_for_others()
        for picture, row in zip(pictures, rows, strict=True):
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            self.rescaler.write(frame, sample_aspect=aspect, out=row)
        return ReadReport()


def _is_known_right(clip: PlannedClip) -> bool:
    video = clip.video
    container, codec = video.container.format.name, video.facts.codec
    is_fragmented = container.startswith("mov") and video.stream.frames == 0
    if container not in _RIGHT_CONTAINERS or codec not in _RIGHT_CODECS or is_fragmented:
        return False
    return len(video.container.streams.video) == 1 and (codec != "h264" or starts_groups_with_idr(clip))
