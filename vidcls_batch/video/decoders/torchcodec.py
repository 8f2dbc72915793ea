"""torchcodec, for those who ask for it (the extra `torchcodec`, and FFmpeg on the machine); PyAV where it is wrong."""

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
    from torchcodec.decoders import VideoDecoder

_RIGHT_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
_RIGHT_CODECS = frozenset({"h264", "hevc", "vp9", "av1", "mpeg4"})


class TorchcodecDecoder:
    """Backend `torchcodec`."""

    def __init__(self, *, height: int, width: int, num_threads: int) -> None:
        from torchcodec.decoders import VideoDecoder

        self._make = VideoDecoder
        self._num_threads = num_threads
        self._rescaler = Rescaler(height=height, width=width)
        self._planned = PlannedDecoder(height=height, width=width, num_threads=num_threads)
        self._label = backend_label("torchcodec")

    @contextmanager
    def open(self, data: Source, *, limits: DecodeLimits) -> Iterator[OpenClip]:
        """See Decoder.open. What torchcodec would count differently is opened by PyAV, and says so."""
        with self._planned.open(data, limits=limits) as clip:
            if isinstance(clip, PlannedClip) and _is_known_right(clip):
                reader = self._reader(data, clip)
                if reader is not None and len(reader) == len(clip.pts_s):
                    yield TorchcodecClip(reader, clip, self._rescaler, self._label)
                    return
            yield clip

    def _reader(self, data: Source, clip: PlannedClip) -> "VideoDecoder | None":
        try:
            return self._make(
                bytes(data[0 : len(data)]),
                stream_index=clip.video.stream.index,
                dimension_order="NHWC",
                num_ffmpeg_threads=self._num_threads,
                seek_mode="exact",
            )
        except (RuntimeError, ValueError):
            return None


@dataclass(slots=True)
class TorchcodecClip:
    """A file open in torchcodec; times and facts come from PyAV, which opened it first, behind the guards."""

    reader: "VideoDecoder"
    planned: PlannedClip
    rescaler: Rescaler
    decoder: str

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
            pictures = self.reader.get_frames_at(list(wanted)).data.numpy()
        except (RuntimeError, IndexError):  # damage inside the file
            self.decoder = self.planned.decoder
            return self.planned.read(wanted, rows)
        aspect = self.planned.sample_aspect_for_others()
        for picture, row in zip(pictures, rows, strict=True):
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            self.rescaler.write(frame, sample_aspect=aspect, out=row)
        return ReadReport()


def _is_known_right(clip: PlannedClip) -> bool:
    if clip.video.container.format.name not in _RIGHT_CONTAINERS or clip.facts.codec not in _RIGHT_CODECS:
        return False
    # Wrong where a group begins with an intra refresh instead of a key picture.
    return clip.facts.codec != "h264" or starts_groups_with_idr(clip)
