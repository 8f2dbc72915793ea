"""A sample of clips through the real fetch and decode stage, one after another, timed."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from vidcls_batch.errors import Status
from vidcls_batch.preflight.memory import largest_peak_of_children
from vidcls_batch.stages.decode import FRAMES, BlockDecoder, DecodeSettings
from vidcls_batch.stages.fetch import FetchSettings

# A run is more patient than a pre-flight may be: a store that is down shows in the first clips.
FETCH_TIMEOUT_S = 15.0
FETCH_RETRIES = 1


@dataclass(frozen=True, slots=True)
class Probe:
    """What the sampled clips were and what they cost; a tuple holds one value for each clip that has one."""

    num_clips: int  # probed; fewer than asked for when time ran out
    statuses: Mapping[str, int]
    codecs: Mapping[str, int]
    sizes: Mapping[str, int]  # "340x256" -> clips
    durations_s: tuple[float, ...]
    num_bytes: tuple[int, ...]
    fetch_s: tuple[float, ...]
    decode_s: tuple[float, ...]  # wall of one worker and its child; clips that failed in decoding included
    failures: tuple[str, ...]  # a line each
    child_peak_bytes: int
    blocks: tuple[pa.Table, ...] = field(repr=False)  # of the stage, one clip each: the first ones that decoded

    @property
    def num_failed(self) -> int:
        """Clips that would get a row without a label."""
        return self.num_clips - self.statuses.get(Status.OK, 0)


def probe_clips(
    clips: pa.Table,
    *,
    settings: DecodeSettings,
    seconds: float,
    keep: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Probe:
    """Fetch and decode `clips` (rows of `CLIPS`) until they or the `seconds` are used up; at least one is probed.

    The last clip may take its own limits beyond that. Frames of the first `keep` good clips are kept.
    """
    rows: list[dict[str, Any]] = []
    wall_s: list[float] = []
    kept: list[pa.Table] = []
    began = clock()
    with BlockDecoder(replace(settings, fetch=_impatient(settings.fetch))) as decoder:
        for index in range(len(clips)):
            started = clock()
            if rows and started - began > seconds:
                break
            block = decoder(clips.slice(index, 1))
            wall_s.append(clock() - started)
            rows.append(block.drop_columns([FRAMES]).to_pylist()[0] | {"uri": clips["uri"][index].as_py()})
            if rows[-1]["status"] == Status.OK and len(kept) < keep:
                kept.append(block)
        peak = largest_peak_of_children()
    return _summary(rows, wall_s, kept, peak)


def _impatient(fetch: FetchSettings) -> FetchSettings:
    return replace(fetch, timeout_s=min(fetch.timeout_s, FETCH_TIMEOUT_S), retries=min(fetch.retries, FETCH_RETRIES))


def _summary(rows: Sequence[Mapping[str, Any]], wall_s: Sequence[float], kept: Sequence[pa.Table], peak: int) -> Probe:
    # The first clip also waits for the child's start and the first connection: it counts where it is alone.
    timed = list(zip(rows, wall_s, strict=True))[1:] or list(zip(rows, wall_s, strict=True))
    return Probe(
        num_clips=len(rows),
        statuses=dict(Counter(row["status"] for row in rows)),
        codecs=dict(Counter(row["codec"] for row in rows if row["codec"])),
        sizes=dict(Counter(f"{row['width']}x{row['height']}" for row in rows if row["width"])),
        durations_s=tuple(row["duration_s"] for row in rows if row["duration_s"] is not None),
        num_bytes=tuple(row["num_bytes"] for row in rows if row["num_bytes"] is not None),
        fetch_s=tuple(row["fetch_ms"] / 1000 for row, _ in timed if row["fetch_ms"] is not None),
        decode_s=tuple(
            max(0.0, wall - (row["fetch_ms"] or 0.0) / 1000)
            for row, wall in timed
            if row["status"] != Status.FETCH_ERROR
        ),
        failures=tuple(
            f"{row['uri']}: {row['status']} ({row['error_code']}): {row['error_message']}"
            for row in rows
            if row["status"] != Status.OK
        ),
        child_peak_bytes=peak,
        blocks=tuple(kept),
    )
