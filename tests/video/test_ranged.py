"""Files of which only parts are fetched: the same frames, fewer bytes."""

import numpy as np
import pytest

from tests.video.clips import FPS, Recipe, encode, index_sets
from tests.video.odd_clips import READABLE, RECIPES, clip
from vidcls_batch.types import DecodeLimits, Frames
from vidcls_batch.video.decoders.base import make_decoder
from vidcls_batch.video.decoders.packets import PlacedPackets
from vidcls_batch.video.decoders.pyav import PlannedClip
from vidcls_batch.video.mp4_index import index_stands_apart
from vidcls_batch.video.source import BLOCK_BYTES, MOST_BYTES_AT_ONCE, BlockCache, SourceFile

LIMITS = DecodeLimits()
BLOCK = 512


def cached(data: bytes, *, capacity: int = 16 * BLOCK, block: int = BLOCK, answer: int = 4 * BLOCK) -> BlockCache:
    asked: list[tuple[int, int]] = []

    def fetch(start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(data)
        assert stop - start <= answer
        asked.append((start, stop))
        return data[start:stop]

    return BlockCache(
        len(data), identity="x", fetch=fetch, capacity_bytes=capacity, block_bytes=block, answer_bytes=answer
    )


def read(name: str, source: bytes | BlockCache, wanted: list[int] | None = None) -> tuple[Frames, object]:
    recipe = RECIPES.get(name, Recipe())
    decoder = make_decoder("pyav", height=recipe.height, width=recipe.width)
    with decoder.open(source, limits=LIMITS) as opened:
        indices = list(range(len(opened.pts_s))) if wanted is None else wanted
        frames = np.zeros((len(indices), recipe.height, recipe.width, 3), np.uint8)
        opened.read(indices, list(frames))
        return frames, opened


INDEXED = [name for name in READABLE if index_stands_apart(clip(name))]


def test_files_with_an_index_of_their_own_are_told_from_others():
    assert {"h264", "h264_faststart", "hevc", "av1_mp4", "mjpeg_mov", "prores", "h264_edit_list"} <= set(INDEXED)
    assert not set(INDEXED) & {"h264_fragmented", "h264_mkv", "h264_ts", "vp9", "gif", "h264_truncated_faststart"}
    assert not index_stands_apart(b"")
    assert not index_stands_apart(clip("h264")[:-1])


@pytest.mark.parametrize("name", INDEXED)
def test_frames_of_a_ranged_file_equal_those_of_the_whole_one(name):
    reference, whole = read(name, clip(name))
    for wanted in index_sets(len(reference), sets=20):
        frames, ranged = read(name, cached(clip(name)), list(wanted))
        assert np.array_equal(frames, reference[list(wanted)]), wanted
        assert np.array_equal(ranged.pts_s, whole.pts_s)
        assert ranged.facts == whole.facts


@pytest.mark.parametrize("name", [n for n in READABLE if n not in INDEXED and "ts" not in n][:6])
def test_a_file_without_such_an_index_is_read_through_and_right(name):
    reference, _ = read(name, clip(name))
    frames, _ = read(name, cached(clip(name)), [len(reference) // 2])
    assert np.array_equal(frames[0], reference[len(reference) // 2])


def test_few_frames_of_a_long_file_cost_few_bytes():
    recipe = Recipe(
        options={"preset": "ultrafast", "crf": "3"}, count=20 * FPS, gop=10, width=320, height=240, audio=True
    )
    long = encode(recipe)
    source = cached(long, block=BLOCK_BYTES, answer=MOST_BYTES_AT_ONCE, capacity=0)
    frames, opened = read("h264", source, [100, 400])
    reference, _ = read("h264", long, [100, 400])
    assert isinstance(opened, PlannedClip)
    assert isinstance(opened.packets, PlacedPackets)
    assert np.array_equal(frames, reference)
    assert source.traffic.num_bytes < len(long) / 5
    assert source.traffic.requests <= 8


def test_the_cache_gives_the_bytes_of_any_range_within_its_capacity():
    data = np.random.default_rng(0).bytes(20_000)
    source, random = cached(data, capacity=8 * BLOCK), np.random.default_rng(1)
    for _ in range(300):
        start, length = int(random.integers(0, 20_100)), int(random.integers(0, 3000))
        assert source[start : start + length] == data[start : start + length]
        assert source.held_bytes <= 8 * BLOCK


def test_reading_on_takes_ever_larger_pieces_and_jumping_takes_one_block():
    data = bytes(100 * BLOCK)
    source = cached(data, answer=8 * BLOCK, capacity=100 * BLOCK)
    file = SourceFile(source)
    for _ in range(30):
        file.read(BLOCK)
    assert source.traffic.requests <= 6
    before = source.traffic.num_bytes
    file.seek(90 * BLOCK)
    file.read(10)
    assert source.traffic.num_bytes - before == BLOCK


def test_what_is_expected_comes_in_one_request():
    source = cached(bytes(100 * BLOCK), answer=8 * BLOCK, capacity=64 * BLOCK)
    source.expect(10 * BLOCK + 5, 10 * BLOCK + 20, until=16 * BLOCK)
    assert (source.traffic.requests, source.traffic.num_bytes) == (1, 6 * BLOCK)
    source.expect(12 * BLOCK, 12 * BLOCK + 9, until=16 * BLOCK)
    assert source.traffic.requests == 1


def test_without_fetching_the_unknown_is_zeros():
    data = bytes([7]) * (10 * BLOCK)
    source = cached(data)
    assert source[3 * BLOCK : 3 * BLOCK + 2] == b"\7\7"
    with source.without_fetching():
        assert source[3 * BLOCK - 1 : 3 * BLOCK + 1] == b"\0\7"
    assert source.traffic.requests == 1
    assert source[3 * BLOCK - 1 : 3 * BLOCK + 1] == b"\7\7"
