"""The reference: decode a file from its start, in order, and keep the frames that are wanted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.types import DecodeLimits, VideoFacts
from vidcls_batch.video.decoders.base import ReadReport, backend_label
from vidcls_batch.video.probe import OpenedVideo, av_failures_become_clip_errors, decode_error, open_video, too_large
from vidcls_batch.video.rescale import Rescaler, Row
from vidcls_batch.video.source import Source
from vidcls_batch.video.timeline import PacketErrors, Timeline, has_timed_packets, read_timeline, video_packets

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_FALLBACK_FPS = 25.0
_Put = Callable[[int, "VideoFrame"], None]


class SequentialDecoder:
    """Backend `pyav-sequential`."""

    def __init__(self, *, height: int, width: int, num_threads: int) -> None:
        self._rescaler = Rescaler(height=height, width=width)
        self._num_threads = num_threads
        self._label = backend_label("pyav-sequential")

    @contextmanager
    def open(self, data: Source, *, limits: DecodeLimits) -> Iterator["SequentialClip"]:
        """See Decoder.open."""
        with open_video(data, limits=limits) as video, av_failures_become_clip_errors():
            timeline = None
            if has_timed_packets(video):
                timeline = read_timeline(video_packets(video, errors=PacketErrors(), limits=limits))
            clip = SequentialClip(data, limits, video.facts, self._rescaler, self._num_threads, self._label)
            clip.count_frames(video, timeline)
            yield clip


@dataclass(slots=True)
class SequentialClip:
    """An open file that is decoded from its start at each read."""

    data: Source
    limits: DecodeLimits
    facts: VideoFacts
    rescaler: Rescaler
    num_threads: int
    decoder: str
    fast: bool = False
    timeline: Timeline | None = None
    pts_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def count_frames(self, video: OpenedVideo, timeline: Timeline | None) -> None:
        """Take frame times from the packets' `timeline`, or by decoding everything where there is none."""
        self.timeline = timeline
        if timeline is not None:
            self.pts_s = display_times(timeline, video)
            return
        for _ in video_packets(video, errors=PacketErrors(), limits=self.limits):
            pass  # too many are refused before one is decoded
        with self._decoding(PacketErrors()) as (_, frames):
            times = [frame.time for frame in frames]
        known = np.array([np.nan if t is None else t for t in times], dtype=np.float64)
        if len(known) and np.all(np.diff(known) > 0) and not np.isnan(known).any():
            self.pts_s = known - video.start_s
        else:
            self.pts_s = np.arange(len(times)) / (self.facts.fps or _FALLBACK_FPS)

    def read(self, wanted: Sequence[int], rows: Sequence[Row]) -> ReadReport:
        """See OpenClip.read."""
        errors = PacketErrors()
        corrupt: set[int] = set()
        with av_failures_become_clip_errors(), self._decoding(errors) as (video, frames):

            def put(slot: int, frame: "VideoFrame") -> None:
                self.rescaler.write(frame, sample_aspect=sample_aspect(video.stream), out=rows[slot])
                if frame.is_corrupt:
                    corrupt.add(wanted[slot])

            if self.timeline is None:
                _put_by_count(frames, wanted, put)
            else:
                _put_by_time(frames, self.timeline.pts[list(wanted)].tolist(), put)
        return ReadReport(packet_errors=errors.count, corrupt=frozenset(corrupt))

    @contextmanager
    def _decoding(self, errors: PacketErrors) -> Iterator[tuple[OpenedVideo, Iterator["VideoFrame"]]]:
        with open_video(self.data, limits=self.limits) as video:
            codec = prepared_codec(video.stream, num_threads=self.num_threads, limits=self.limits, fast=self.fast)
            packets = chain(video_packets(video, errors=errors, limits=self.limits), (None,))
            yield video, chain.from_iterable(decode_packet(codec, packet, errors=errors) for packet in packets)


def _put_by_count(frames: Iterator["VideoFrame"], wanted: Sequence[int], put: _Put) -> None:
    slot = 0
    for index, frame in enumerate(frames):
        if index == wanted[slot]:
            put(slot, frame)
            slot += 1
            if slot == len(wanted):
                return
    raise decode_error(f"frame {wanted[slot]} could be decoded once but not again", code="unstable_decode")


def _put_by_time(frames: Iterator["VideoFrame"], wanted_pts: Sequence[int], put: _Put) -> None:
    """Each wanted time gets the frame a player would be showing then."""
    slot, on_screen = 0, None
    for frame in frames:
        while slot < len(wanted_pts) and frame.pts is not None and wanted_pts[slot] < frame.pts:
            put(slot, on_screen if on_screen is not None else frame)
            slot += 1
        if slot == len(wanted_pts):
            return
        on_screen = frame
    if on_screen is None:
        raise decode_error("not one frame could be decoded", code="no_frames")
    for rest in range(slot, len(wanted_pts)):
        put(rest, on_screen)


def display_times(timeline: Timeline, video: OpenedVideo) -> NDArray[np.float64]:
    """Frame times in seconds from the start of the file. Raises ClipError over max_duration_s."""
    base = video.stream.time_base
    return timeline.pts.astype(np.float64) * float(base or 1) - video.start_s


def check_span(pts_s: NDArray[np.float64], *, limits: DecodeLimits) -> None:
    """Raises ClipError for a file whose frames span more than its header said and the run allows."""
    span_s = float(pts_s[-1] - pts_s[0]) if len(pts_s) else 0.0
    if span_s > limits.max_duration_s:
        raise too_large(f"{span_s:.0f} s, over max_duration_s={limits.max_duration_s:g}", code="max_duration")


def prepared_codec(stream: "VideoStream", *, num_threads: int, limits: DecodeLimits, fast: bool) -> "VideoCodecContext":
    """The stream's decoder with so many threads; 1 is none of its own, as a run's workers are the parallelism.

    `fast` leaves the loop filter out.
    """
    codec: VideoCodecContext = stream.codec_context
    # Pictures may be larger than the header says.
    codec.options = {"max_pixels": str(limits.max_pixels)} | ({"skip_loop_filter": "all"} if fast else {})
    codec.thread_count = num_threads
    codec.thread_type = "NONE" if num_threads == 1 else "AUTO"
    return codec


def sample_aspect(stream: "VideoStream") -> float:
    """Width of a stored pixel over its height, 1 where the file does not say; complete once a picture is decoded."""
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return float(ratio) if ratio else 1.0


def decode_packet(
    codec: "VideoCodecContext", packet: "Packet[VideoStream] | None", *, errors: PacketErrors
) -> Sequence["VideoFrame"]:
    """Frames that come out when `packet` goes in (None: what is still inside); a damaged packet is counted."""
    import av

    try:
        return codec.decode(packet)
    except MemoryError:
        raise
    except av.error.FFmpegError:
        errors.count += 1
        return ()
