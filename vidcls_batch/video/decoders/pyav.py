"""Planned decoding: only the key-frame groups that hold wanted frames, without the pictures nobody refers to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.types import DecodeLimits, VideoFacts
from vidcls_batch.video.decoders.base import OpenClip, ReadReport, backend_label
from vidcls_batch.video.decoders.packets import KeptPackets, PacketsReadAgain, PacketStore, holds_idr, place_packets
from vidcls_batch.video.decoders.pyav_sequential import (
    SequentialClip,
    check_span,
    decode_packet,
    prepared_codec,
    sample_aspect,
)
from vidcls_batch.video.libav_log import Message, tells_of_damage
from vidcls_batch.video.probe import OpenedVideo, av_failures_become_clip_errors, open_video
from vidcls_batch.video.rescale import Rescaler, Row
from vidcls_batch.video.source import BlockCache, Source
from vidcls_batch.video.timeline import PacketErrors, Timeline, has_timed_packets, read_timeline, video_packets

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

# Decoders that may be told to drop unreferenced pictures and still return every other one. dav1d loses frames.
_DROPS_NONREF_SAFELY = frozenset({"h264", "hevc"})


class PlannedDecoder:
    """Backend `pyav`."""

    name = "pyav"
    fast = False

    def __init__(self, *, height: int, width: int, num_threads: int) -> None:
        self._rescaler = Rescaler(height=height, width=width)
        self._num_threads = num_threads
        self._label = backend_label(self.name)

    @contextmanager
    def open(self, data: Source, *, limits: DecodeLimits) -> Iterator[OpenClip]:
        """See Decoder.open."""
        if isinstance(data, BlockCache):
            with open_video(data, limits=limits) as video, av_failures_become_clip_errors():
                if (placed := place_packets(data, video, limits=limits)) and (timeline := read_timeline(placed.places)):
                    yield self._planned(data, video, timeline, placed, limits)
                    return
        with open_video(data, limits=limits) as video, av_failures_become_clip_errors():
            timeline, errors, kept = None, PacketErrors(), KeptPackets(video.messages, [])
            if has_timed_packets(video):
                timeline = read_timeline(kept.keep(video_packets(video, errors=errors, limits=limits)))
            if timeline is None or errors.count:
                yield self._sequential(data, video, timeline, limits)
            else:
                packets = kept if kept.packets is not None else PacketsReadAgain(data, limits)
                yield self._planned(data, video, timeline, packets, limits)

    def _planned(
        self, data: Source, video: OpenedVideo, timeline: Timeline, packets: PacketStore, limits: DecodeLimits
    ) -> "PlannedClip":
        return PlannedClip(video, timeline, packets, self._sequential(data, video, timeline, limits))

    def _sequential(
        self, data: Source, video: OpenedVideo, timeline: Timeline | None, limits: DecodeLimits
    ) -> SequentialClip:
        clip = SequentialClip(data, limits, video.facts, self._rescaler, self._num_threads, self._label, self.fast)
        clip.count_frames(video, timeline)
        check_span(clip.pts_s, limits=limits)
        return clip


class FastPlannedDecoder(PlannedDecoder):
    """Backend `pyav-fast`: without the loop filter, so edges of coded blocks show."""

    name = "pyav-fast"
    fast = True


@dataclass(slots=True)
class PlannedClip:
    """An open file whose frame times are known from its packets."""

    video: OpenedVideo
    timeline: Timeline
    packets: PacketStore
    reference: SequentialClip

    @property
    def facts(self) -> VideoFacts:
        """See OpenClip.facts."""
        return self.reference.facts

    @property
    def pts_s(self) -> NDArray[np.float64]:
        """See OpenClip.pts_s."""
        return self.reference.pts_s

    @property
    def decoder(self) -> str:
        """See OpenClip.decoder."""
        return self.reference.decoder

    @property
    def kept(self) -> "list[Packet[VideoStream]] | None":
        """All packets, where they are in memory."""
        return self.packets.packets if isinstance(self.packets, KeptPackets) else None

    def read(self, wanted: Sequence[int], rows: Sequence[Row]) -> ReadReport:
        """See OpenClip.read.

        The plan is never trusted: a damaged packet or picture, or a wanted frame that does not come, and the whole file
        is decoded in order instead, so that damage looks the same whichever frames are asked for.
        """
        with av_failures_become_clip_errors():
            complete = self._read_planned(wanted, rows)
        return ReadReport() if complete else self.reference.read(wanted, rows)

    def sample_aspect_for_others(self) -> float:
        """The pixels' aspect ratio where another library decodes: the first packet tells when the header does not."""
        reference, stream = self.reference, self.video.stream
        if not stream.sample_aspect_ratio and self.kept:
            codec = prepared_codec(
                stream, num_threads=reference.num_threads, limits=reference.limits, fast=reference.fast
            )
            decode_packet(codec, self.kept[0], errors=PacketErrors())
            codec.flush_buffers()
        return sample_aspect(stream)

    def _read_planned(self, wanted: Sequence[int], rows: Sequence[Row]) -> bool:
        reference = self.reference
        codec = prepared_codec(
            self.video.stream, num_threads=reference.num_threads, limits=reference.limits, fast=reference.fast
        )
        row_by_pts = {int(self.timeline.pts[index]): row for index, row in zip(wanted, rows, strict=True)}
        for packets, messages in self.packets.groups(self._plan(wanted)):
            if not self._read_group(codec, packets, messages, row_by_pts):
                return False
            codec.flush_buffers()
        return not row_by_pts

    def _plan(self, wanted: Sequence[int]) -> list[tuple[int, int]]:
        timeline = self.timeline
        while True:
            groups = plan_groups(timeline, wanted)
            unclean = {first for first, _ in groups if first in timeline.keys and not self.packets.starts_clean(first)}
            if not unclean:
                return groups
            timeline = timeline.without_keys(unclean)

    def _read_group(
        self,
        codec: "VideoCodecContext",
        packets: "Iterator[Packet[VideoStream]]",
        messages: Sequence[Message],
        row_by_pts: dict[int, Row],
    ) -> bool:
        """Decode from a key packet on and take wanted pictures out of `row_by_pts`; False when something is wrong."""
        may_drop = self.facts.codec in _DROPS_NONREF_SAFELY
        key_pts: int | None = None
        for packet in chain(packets, (None,)):
            if packet is not None:
                key_pts = packet.pts if key_pts is None else key_pts
                if may_drop:
                    codec.skip_frame = "DEFAULT" if packet.pts in row_by_pts else "NONREF"
            errors, heard = PacketErrors(), len(messages)
            for frame in decode_packet(codec, packet, errors=errors):
                row = row_by_pts.pop(frame.pts, None) if frame.pts is not None else None
                if row is not None:
                    if frame.is_corrupt:
                        return False
                    self.reference.rescaler.write(frame, sample_aspect=sample_aspect(self.video.stream), out=row)
            # A lost packet leaves no mark on pictures: the decoder only complains of missing references. It may do so
            # where an open GOP begins: what is shown before its key picture refers to the group before: never wanted.
            leads = packet is not None and packet.pts is not None and key_pts is not None and packet.pts < key_pts
            if not leads and (errors.count or tells_of_damage(messages[heard:])):
                return False
        return True


def plan_groups(timeline: Timeline, wanted: Sequence[int]) -> list[tuple[int, int]]:
    """Packet ranges [first, last] that must be decoded, ascending and apart, for the frames `wanted`."""
    spans = []
    for index in wanted:
        packet, pts = int(timeline.packets[index]), int(timeline.pts[index])
        spans.append((timeline.group_start(packet, pts), packet))
    groups: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if groups and first <= groups[-1][1] + 1:
            groups[-1] = (groups[-1][0], max(groups[-1][1], last))
        else:
            groups.append((first, last))
    return groups


def starts_groups_with_idr(clip: PlannedClip) -> bool:
    """Whether each key packet of an H.264 file is a clean start; others start at any and show what they have."""
    kept = clip.kept
    return kept is not None and all(holds_idr(bytes(kept[key])) for key in clip.timeline.keys)
