"""One clip from bytes to frames, in this process. The sandbox runs the same in a child that can be killed."""

import time
from collections.abc import Callable

import numpy as np

from vidcls_batch.types import DecodedClip, DecodeLimits, DecodeReport, FrameRequest, Frames, Samples
from vidcls_batch.video.audio import decode_sound
from vidcls_batch.video.decoders.base import Decoder, OpenClip, ReadReport, make_decoder
from vidcls_batch.video.probe import check_num_bytes, decode_error
from vidcls_batch.video.quality import measure_quality
from vidcls_batch.video.rescale import Row
from vidcls_batch.video.sampling import CENTRE, Indices, crop_of_slots, slot_indices
from vidcls_batch.video.source import Source


def decode_in_process(
    source: Source,
    request: FrameRequest,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    backend: str = "auto",
    limits: DecodeLimits | None = None,
) -> DecodedClip:
    """Decode without a sandbox: no timeout, no memory limit. For trusted files, tests and benchmarks.

    Raises ClipError, and ConfigError for an unknown backend.
    """
    decoder = make_decoder(backend, height=request.height, width=request.width)
    frames = np.zeros(request.frames_shape, dtype=np.uint8)
    samples = np.zeros(request.num_samples, np.float32)
    report = decode_into(
        frames,
        source,
        decoder=decoder,
        request=request,
        limits=limits or DecodeLimits(),
        start_s=start_s,
        end_s=end_s,
        samples=samples,
    )
    return DecodedClip(frames, report, samples)


def decode_into(
    out: Frames,
    source: Source,
    *,
    decoder: Decoder,
    request: FrameRequest,
    limits: DecodeLimits,
    start_s: float | None = None,
    end_s: float | None = None,
    samples: Samples | None = None,
    opened: Callable[[OpenClip], None] | None = None,
) -> DecodeReport:
    """Fill `out` (uint8, request.frames_shape) and, where the request has sounds, `samples` (float32,
    [request.num_samples]); report. `opened` hears of the clip before frames are decoded.

    Raises ClipError; sound that cannot be had is no error.
    """
    start = time.perf_counter()
    check_num_bytes(len(source), limits=limits)
    with decoder.open(source, limits=limits) as clip:
        if opened is not None:
            opened(clip)
        slots = _slots(clip, request, start_s, end_s)
        read = _read_slots(clip, request, slots, out)
        last_s = clip.facts.duration_s or float(clip.pts_s[-1])
    corrupt = np.isin(slots, list(read.corrupt))
    quality = measure_quality(
        request, out, slots=slots, pts_s=clip.pts_s, corrupt=corrupt, packet_errors=read.packet_errors
    )
    sound = None
    if request.sounds and samples is not None:
        sound = decode_sound(
            samples,
            source,
            windows=request.sounds,
            limits=limits,
            start_s=start_s or 0.0,
            end_s=last_s if end_s is None else end_s,
        )
    return DecodeReport(
        facts=clip.facts,
        quality=quality,
        decoder=clip.decoder,
        decode_ms=(time.perf_counter() - start) * 1000,
        audio=None if sound is None else sound.state,
        sound_lengths=() if sound is None else sound.lengths,
    )


def _read_slots(clip: OpenClip, request: FrameRequest, slots: Indices, out: Frames) -> ReadReport:
    """Decode and convert each distinct frame once, into the first slots that show it; the others are copies."""
    shown = list(zip(slots.tolist(), crop_of_slots(request).tolist(), strict=True))
    first: dict[tuple[int, int], int] = {}
    for slot, picture in enumerate(shown):
        first.setdefault(picture, slot)
    wanted = sorted({index for index, _ in shown})
    read = clip.read(wanted, [_row(index, first, out) for index in wanted])
    for slot, picture in enumerate(shown):
        if first[picture] != slot:
            out[slot] = out[first[picture]]
    return read


def _row(index: int, first: dict[tuple[int, int], int], out: Frames) -> Row:
    centre: Frames = out[first[index, CENTRE]]
    if (index, 0) not in first:
        return centre
    return out[first[index, 0]], centre, out[first[index, 2]]


def _slots(clip: OpenClip, request: FrameRequest, start_s: float | None, end_s: float | None) -> Indices:
    if len(clip.pts_s) == 0:
        raise decode_error("not one frame could be decoded", code="no_frames")
    try:
        return slot_indices(request, pts_s=clip.pts_s, start_s=start_s, end_s=end_s)
    except ValueError as error:
        raise decode_error(str(error), code="empty_range") from error
