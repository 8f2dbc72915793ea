"""Opening a video behind guards: what may be opened, how large it may say it is, what its header tells."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidcls_batch.errors import ClipError, Stage, Status
from vidcls_batch.types import DecodeLimits, VideoFacts
from vidcls_batch.video.libav_log import Message, hearing_errors
from vidcls_batch.video.source import Source, SourceFile

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Everything else is refused unread. Left out on purpose: playlists and scripts that open other files (hls, concat,
# dash, imf, sdp) and still pictures (png_pipe ...): a 775 KB PNG of 16000 x 16000 costs 780 MB in open alone.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,avi,asf,flv,live_flv,gif,ogg,ivf,nut,mxf,rm,dv,"
    "h264,hevc,av1,obu,m4v,mpegvideo,mjpeg,yuv4mpegpipe,mp3,aac,wav,flac"
)
# What libav says of common damage, and the code it gets in the row.
_CODES = (("moov atom not found", "moov_missing"), ("not on whitelist", "format_refused"))
_MICROSECONDS = 1_000_000
# Larger than PyAV's 32 KB: one call into Python for each read.
_READ_BYTES = 1 << 18
# An MP4 header says all there is to know: decode nothing, read little. Opening a 720p H.264 file takes 1 ms instead of
# 25; other containers need the look inside for their size, rate or first time.
_QUICK_OPEN = {"skip_frame": "all", "probesize": "65536"}


@dataclass(frozen=True, slots=True)
class OpenedVideo:
    """A container that passed the guards, and the video stream that will be decoded."""

    container: "InputContainer"
    stream: "VideoStream"
    facts: VideoFacts
    start_s: float  # where the file's clock starts; frame times are given relative to it
    messages: list[Message]  # errors libav reports while the file is open, growing


@contextmanager
def open_video(data: Source, *, limits: DecodeLimits) -> Iterator[OpenedVideo]:
    """Open and check against `limits` before any frame is decoded. Raises ClipError."""
    with open_container(data, limits=limits) as (container, messages), av_failures_become_clip_errors():
        stream = _pick_stream(container)
        facts = _read_facts(container, stream)
        if facts.width is None:
            _refuse_oversized(messages)
        check_facts(facts, num_packets=stream.frames, limits=limits)
        yield OpenedVideo(container, stream, facts, _start_s(container, stream), messages)


@contextmanager
def open_container(data: Source, *, limits: DecodeLimits) -> Iterator[tuple["InputContainer", list[Message]]]:
    """Open a file of a format that cannot reach outside its own bytes. Raises ClipError."""
    import av

    check_num_bytes(len(data), limits=limits)
    options = {
        "format_whitelist": CONTAINERS,
        "protocol_whitelist": "none",  # the bytes at hand and nothing else
        "max_pixels": str(limits.max_pixels),
    }
    if bytes(data[4:8]) == b"ftyp":
        options |= _QUICK_OPEN
    with hearing_errors() as messages, av_failures_become_clip_errors():
        container = av.open(
            SourceFile(data), mode="r", options=options, metadata_errors="ignore", buffer_size=_READ_BYTES
        )
        with container:
            yield container, messages


@contextmanager
def av_failures_become_clip_errors() -> Iterator[None]:
    """What libav raises about the bytes becomes `decode_error`; running out of memory becomes `crashed`."""
    import av

    try:
        yield
    except MemoryError as error:  # av.error.MemoryError is one
        raise ClipError(
            f"the decoder ran out of memory: {error}", status=Status.CRASHED, stage=Stage.DECODE, code="out_of_memory"
        ) from error
    except av.error.InvalidDataError as error:
        said = error.log[2].strip() if error.log else error.strerror
        code = next((code for words, code in _CODES if words in said), "invalid_data")
        raise decode_error(f"not a readable video: {said}", code=code) from error
    except av.error.FFmpegError as error:
        raise decode_error(f"{type(error).__name__}: {error.strerror}", code="decoder_failed") from error


def decode_error(message: str, *, code: str) -> ClipError:
    """The bytes are no video, or too damaged."""
    return ClipError(message, status=Status.DECODE_ERROR, stage=Stage.DECODE, code=code)


def too_large(message: str, *, code: str) -> ClipError:
    """The clip would cost more than the run allows."""
    return ClipError(message, status=Status.TOO_LARGE, stage=Stage.DECODE, code=code)


def check_num_bytes(num_bytes: int, *, limits: DecodeLimits) -> None:
    """Raises ClipError for an empty or too large file."""
    if num_bytes == 0:
        raise decode_error("the file is empty", code="empty_file")
    if num_bytes > limits.max_bytes:
        raise too_large(f"{num_bytes} bytes, over max_bytes={limits.max_bytes}", code="max_bytes")


def check_facts(facts: VideoFacts, *, num_packets: int, limits: DecodeLimits) -> None:
    """Raises ClipError where the header says more than `limits` allow."""
    if facts.width is not None and facts.height is not None and facts.width * facts.height > limits.max_pixels:
        raise too_large(f"{facts.width}x{facts.height} pixels, over max_pixels={limits.max_pixels}", code="max_pixels")
    if facts.duration_s is not None and facts.duration_s > limits.max_duration_s:
        raise too_large(f"{facts.duration_s:.0f} s, over max_duration_s={limits.max_duration_s:g}", code="max_duration")
    check_num_packets(num_packets, limits=limits)


def check_num_packets(num_packets: int, *, limits: DecodeLimits) -> None:
    """Raises ClipError when a video track has more packets than allowed."""
    if num_packets > limits.max_packets:
        raise too_large(f"{num_packets} or more packets, over max_packets={limits.max_packets}", code="max_packets")


def _refuse_oversized(messages: list[Message]) -> None:
    for _, _, text in messages:
        if text.startswith("Picture size"):  # over max_pixels, or over what libav itself allows
            raise too_large(text.strip(), code="max_pixels")


def _pick_stream(container: "InputContainer") -> "VideoStream":
    from av.stream import Discard, Disposition

    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        raise ClipError(
            "the file has no video stream", status=Status.NO_VIDEO, stage=Stage.DECODE, code="no_video_stream"
        )
    best = container.streams.best("video")
    stream: VideoStream = next((s for s in videos if s is best), videos[0])
    if stream.codec_context is None:
        raise decode_error("the video's codec is not supported", code="unsupported_codec")
    for other in container.streams:
        if other is not stream:  # sound nobody hears took 20 % of reading the packets of a small file
            other.discard = Discard.all
    return stream


def _start_s(container: "InputContainer", stream: "VideoStream") -> float:
    start_s = (container.start_time or 0) / _MICROSECONDS
    own_s = float((stream.start_time or 0) * (stream.time_base or 0))
    # The container's clock is rounded to microseconds: take the video's own where it is the first to start.
    return own_s if abs(own_s - start_s) < 1 / _MICROSECONDS else start_s


def _read_facts(container: "InputContainer", stream: "VideoStream") -> VideoFacts:
    codec = stream.codec_context
    duration_s = None
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / _MICROSECONDS
    rate = stream.average_rate or stream.guessed_rate
    return VideoFacts(
        duration_s=duration_s if duration_s is not None and duration_s > 0 else None,
        fps=float(rate) if rate else None,
        width=codec.width or None,
        height=codec.height or None,
        codec=codec.codec.canonical_name,
    )
