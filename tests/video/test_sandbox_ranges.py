"""The child asks for bytes, the parent fetches them."""

import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest

from tests.video.faulty_decoder import BACKEND, with_fault
from tests.video.odd_clips import clip
from tests.video.test_hostile import mutants
from vidcls_batch.errors import ClipError, Stage, Status
from vidcls_batch.types import DecodeLimits, FrameRequest, Sampling
from vidcls_batch.video.sandbox import SandboxedDecoder
from vidcls_batch.video.source import BlockCache

REQUEST = FrameRequest((Sampling(4),), 32, 32)
OUT = np.zeros(REQUEST.frames_shape, np.uint8)


def ranged(data: bytes, *, before: Callable[[], None] = lambda: None, identity: str = "a") -> BlockCache:
    def fetch(start: int, stop: int) -> bytes:
        before()
        return data[start:stop]

    return BlockCache(len(data), identity=identity, fetch=fetch, capacity_bytes=1 << 20, block_bytes=4096)


def failure(decoder: SandboxedDecoder, source: BlockCache) -> ClipError:
    with pytest.raises(ClipError) as caught:
        decoder.decode(source, out=OUT)
    return caught.value


@pytest.mark.parametrize("name", ["h264", "hevc_open_gop", "h264_mkv", "h264_ts", "gif"])
def test_frames_are_those_of_the_whole_file(name):
    with SandboxedDecoder(REQUEST, limits=DecodeLimits()) as decoder:
        whole = decoder.decode(clip(name), out=OUT)
        frames = OUT.copy()
        report = decoder.decode(ranged(clip(name)), out=OUT)
    assert np.array_equal(OUT, frames)
    assert report.quality == whole.quality
    assert report.facts == whole.facts


def test_waiting_for_bytes_is_not_the_clips_time():
    source = ranged(clip("h264"), before=lambda: time.sleep(0.7))
    with SandboxedDecoder(REQUEST, limits=DecodeLimits(timeout_s=0.6)) as decoder:
        decoder.decode(source, out=OUT)
    assert source.traffic.requests >= 1


def test_bytes_that_cannot_be_had_are_the_clips_failure_and_the_next_clip_is_fine():
    def refuse() -> None:
        raise ClipError("gone", status=Status.FETCH_ERROR, stage=Stage.FETCH, code="not_found")

    with SandboxedDecoder(REQUEST, limits=DecodeLimits()) as decoder:
        error = failure(decoder, ranged(clip("h264"), before=refuse))
        assert (error.status, error.stage, error.code) == (Status.FETCH_ERROR, Stage.FETCH, "not_found")
        decoder.decode(clip("h264"), out=OUT)
        decoder.decode(ranged(clip("h264")), out=OUT)


@pytest.mark.parametrize(("fault", "code"), [("hang", "decode_timeout"), ("segfault", "sigsegv")])
def test_a_file_read_in_parts_that_kills_twice_is_quarantined(fault, code):
    killer = with_fault(clip("h264"), fault)
    with SandboxedDecoder(REQUEST, limits=DecodeLimits(timeout_s=0.7), backend=BACKEND) as decoder:
        codes = [failure(decoder, ranged(killer)).code for _ in range(3)]
        decoder.decode(ranged(clip("h264"), identity="b"), out=OUT)
    assert codes[0] == code
    assert codes[-1] == "quarantined"


def test_damaged_files_read_in_parts_give_rows_or_typed_errors():
    limits = DecodeLimits(timeout_s=20, memory_mb=200)
    with SandboxedDecoder(REQUEST, limits=limits) as decoder:
        for kind in ("h264_faststart", "h264", "hevc_open_gop"):
            for number, mutant in enumerate(mutants(clip(kind), 20, seed=5)):
                source = ranged(mutant, identity=f"{kind} {number}")
                with suppress(ClipError):  # anything else is a failure of this test
                    decoder.decode(source, out=OUT)
                assert source.traffic.num_bytes <= 5 * len(mutant) + 8 * 4096
        decoder.decode(clip("h264"), out=OUT)
