"""When each frame of a file is on screen, read from its packets without decoding one."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.types import DecodeLimits
from vidcls_batch.video.probe import OpenedVideo, check_num_packets, too_large

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

# Where packets carry the times of the frames they become. AVI, MPEG-PS, raw streams, FLV and others repeat, drop or
# invent times: their frames are counted by decoding.
_TIMED_CONTAINERS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts"})
# Codecs in which each packet is exactly one frame. Not VP8: its hidden reference frames are packets of their own.
_ONE_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "ffv1", "dnxhd"}
)
# A packet takes 4 microseconds to read. The smallest frames of real codecs, "the same again", are 10 to 100 bytes: so
# many smaller ones are no video, and are refused before the millionth.
_FLOOD_PACKETS = 100_000
_FLOOD_PACKET_BYTES = 8


@dataclass(frozen=True, slots=True)
class Timeline:
    """Frames in display order: their times in stream ticks, and the position of their packets in the file."""

    pts: NDArray[np.int64]
    packets: NDArray[np.int64]
    keys: tuple[int, ...]  # positions of key packets, ascending
    key_pts: tuple[int, ...]

    def without_keys(self, positions: set[int]) -> "Timeline":
        """The same, with decoding never starting at `positions`."""
        kept = [(key, pts) for key, pts in zip(self.keys, self.key_pts, strict=True) if key not in positions]
        return Timeline(self.pts, self.packets, tuple(key for key, _ in kept), tuple(pts for _, pts in kept))

    def group_start(self, packet: int, pts: int) -> int:
        """Position of the packet from which decoding must start to show the frame of `packet` at `pts`.

        The last key packet at or before it that is not shown after it: pictures that follow an open-GOP key packet in
        the file but precede it on screen need the group before.
        """
        i = bisect_right(self.keys, packet) - 1
        while i > 0 and self.key_pts[i] > pts:
            i -= 1
        return self.keys[i] if i >= 0 else 0


@dataclass(slots=True)
class PacketErrors:
    """How many packets could not be read or decoded."""

    count: int = 0


def video_packets(video: OpenedVideo, *, errors: PacketErrors, limits: DecodeLimits) -> Iterator["Packet[VideoStream]"]:
    """The stream's packets in file order, without the empty ones that mean end-of-stream to a decoder.

    A file that breaks off gives what came before the break. Raises ClipError over `limits.max_packets`.
    """
    import av

    packets = video.container.demux(video.stream)
    num_bytes = 0
    try:
        for count, packet in enumerate(packets, start=1):
            if count > limits.max_packets:
                check_num_packets(count, limits=limits)
            num_bytes += packet.size
            if count == _FLOOD_PACKETS and num_bytes < count * _FLOOD_PACKET_BYTES:
                raise too_large(f"{count} packets of {num_bytes / count:.1f} bytes on average", code="packet_flood")
            if packet.size:
                yield packet
    except MemoryError:
        raise
    except av.error.FFmpegError:
        errors.count += 1


def has_timed_packets(video: OpenedVideo) -> bool:
    """Whether the container and codec are known to give each frame one packet with its time."""
    codec = video.facts.codec
    return video.container.format.name in _TIMED_CONTAINERS and codec in _ONE_FRAME_PER_PACKET


class TimedPacket(Protocol):
    """What a timeline needs to know of a packet."""

    @property
    def pts(self) -> int | None:
        """When it is shown, in stream ticks."""

    @property
    def is_keyframe(self) -> bool:
        """Whether decoding may start here."""

    @property
    def is_discard(self) -> bool:
        """Whether it is decoded and never shown."""


def read_timeline(packets: Iterable[TimedPacket]) -> Timeline | None:
    """Display order from packets; None when a time is missing or given twice."""
    shown_pts, shown_packets = array("q"), array("q")  # a million of either is 8 MB; as Python ints it would be 40
    keys: list[int] = []
    key_pts: list[int] = []
    complete = True
    for position, packet in enumerate(packets):
        pts = packet.pts
        if pts is None:
            complete = False
            continue
        if packet.is_keyframe:
            keys.append(position)
            key_pts.append(pts)
        if not packet.is_discard:  # an edit list's lead-in is decoded, never shown
            shown_pts.append(pts)
            shown_packets.append(position)
    if not complete or not shown_pts:
        return None
    pts_in_file_order: NDArray[np.int64] = np.array(shown_pts, dtype=np.int64)
    order = np.argsort(pts_in_file_order, kind="stable")
    pts_in_order = pts_in_file_order[order]
    if np.any(pts_in_order[1:] == pts_in_order[:-1]):
        return None
    return Timeline(pts_in_order, np.array(shown_packets, dtype=np.int64)[order], tuple(keys), tuple(key_pts))
