"""Where a planned decode gets its packets from: kept in memory, read a second time, or placed by the file's index."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol, cast

from vidcls_batch.types import DecodeLimits
from vidcls_batch.video.libav_log import Message
from vidcls_batch.video.probe import OpenedVideo, open_video
from vidcls_batch.video.source import BlockCache, Source
from vidcls_batch.video.timeline import PacketErrors, video_packets

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

Group = tuple["Iterator[Packet[VideoStream]]", Sequence[Message]]

# Packets of longer and larger files are read a second time rather than kept.
_MOST_PACKETS_KEPT = 50_000
_MOST_BYTES_KEPT = 256 << 20
_IDR = 5  # nal_unit_type, ITU-T H.264 table 7-1
# Codecs whose packets in MP4 and MOV are the file's own bytes, and whose index tells the same times as reading them.
_PLACEABLE = frozenset({"h264", "hevc", "av1", "mpeg4", "mjpeg", "prores"})


class PacketStore(Protocol):
    """The video packets of an open file, by their position among them."""

    def groups(self, spans: Sequence[tuple[int, int]]) -> Iterator[Group]:
        """The packets first..last of each of `spans`, ascending and apart, and libav's growing list of complaints."""

    def starts_clean(self, position: int) -> bool:
        """Whether decoding can begin with the key packet at `position`."""


@dataclass(slots=True)
class KeptPackets:
    """Passes packets on and keeps them, unless they become too many."""

    messages: Sequence[Message]
    packets: "list[Packet[VideoStream]] | None"

    def keep(self, source: "Iterator[Packet[VideoStream]]") -> "Iterator[Packet[VideoStream]]":
        """Each packet of `source`."""
        num_bytes = 0
        for packet in source:
            if self.packets is not None:
                self.packets.append(packet)
                num_bytes += packet.size
                if num_bytes > _MOST_BYTES_KEPT or len(self.packets) > _MOST_PACKETS_KEPT:
                    self.packets = None
            yield packet

    def groups(self, spans: Sequence[tuple[int, int]]) -> Iterator[Group]:
        """See PacketStore.groups."""
        assert self.packets is not None
        for first, last in spans:
            yield iter(self.packets[first : last + 1]), self.messages

    def starts_clean(self, position: int) -> bool:
        """See PacketStore.starts_clean: libav has looked into the packet."""
        return True


@dataclass(frozen=True, slots=True)
class PacketsReadAgain:
    """Demuxes the file once more."""

    data: Source
    limits: DecodeLimits

    def groups(self, spans: Sequence[tuple[int, int]]) -> Iterator[Group]:
        """See PacketStore.groups."""
        with open_video(self.data, limits=self.limits) as again:
            packets, position = video_packets(again, errors=PacketErrors(), limits=self.limits), 0
            for first, last in spans:
                yield islice(packets, first - position, last + 1 - position), again.messages
                position = last + 1

    def starts_clean(self, position: int) -> bool:
        """See PacketStore.starts_clean."""
        return True


@dataclass(frozen=True, slots=True)
class PlacedPacket:
    """Where a packet's bytes are, and what the index says of them."""

    start: int
    size: int
    pts: int | None
    dts: int | None
    is_keyframe: bool
    is_discard: bool


@dataclass(frozen=True, slots=True)
class PlacedPackets:
    """Fetches packets when they are decoded, those of a group in few requests."""

    data: BlockCache
    video: OpenedVideo
    places: Sequence[PlacedPacket]

    def groups(self, spans: Sequence[tuple[int, int]]) -> Iterator[Group]:
        """See PacketStore.groups."""
        for first, last in spans:
            yield self._packets(self.places[first : last + 1]), self.video.messages

    def starts_clean(self, position: int) -> bool:
        """See PacketStore.starts_clean: an index calls H.264 pictures keys that are none to libav."""
        place = self.places[position]
        return self.video.facts.codec != "h264" or holds_idr(self.data[place.start : place.start + place.size])

    def _packets(self, places: Sequence[PlacedPacket]) -> "Iterator[Packet[VideoStream]]":
        from av.packet import Packet

        stream, end = self.video.stream, max(place.start + place.size for place in places)
        for place in places:
            stop = place.start + place.size
            self.data.expect(place.start, stop, until=end)
            packet = cast("Packet[VideoStream]", Packet(self.data[place.start : stop]))
            packet.stream = stream
            if stream.time_base is not None:
                packet.time_base = stream.time_base
            packet.pts, packet.dts, packet.is_keyframe = place.pts, place.dts, place.is_keyframe
            yield packet


def place_packets(data: BlockCache, video: OpenedVideo, *, limits: DecodeLimits) -> PlacedPackets | None:
    """All packets' places from the index of an MP4 or MOV file, without fetching one; None where they must be read.

    libav walks the packets as ever, over zeros where the pictures would be: its own handling of edit lists and time
    stamps is what counts. `data` must be a file whose `index_stands_apart`.
    """
    if video.facts.codec not in _PLACEABLE:
        return None
    keys = {entry.pos for entry in video.stream.index_entries if entry.is_keyframe}  # zeros are no key pictures
    errors, places = PacketErrors(), []
    with data.without_fetching():
        for packet in video_packets(video, errors=errors, limits=limits):
            start, size = packet.pos, packet.size
            if start is None or start < 0 or start + size > len(data) or any(packet.iter_sidedata()):
                return None
            places.append(
                PlacedPacket(start, size, packet.pts, packet.dts, start in keys, is_discard=packet.is_discard)
            )
    return None if errors.count else PlacedPackets(data, video, places)


def holds_idr(access_unit: bytes) -> bool:
    """Whether an IDR picture is in an access unit with 4-byte lengths, as MP4 and Matroska store them."""
    at = 0
    while at + 4 < len(access_unit):
        if access_unit[at + 4] & 0x1F == _IDR:
            return True
        at += 4 + int.from_bytes(access_unit[at : at + 4], "big")
    return False
