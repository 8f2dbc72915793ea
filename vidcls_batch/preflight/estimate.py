"""What a run will need, from what a sample cost: memory, object store, output, requests. Pure arithmetic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vidcls_batch.resources import StageResources

# A Python process with the libraries a decode worker imports, measured: the frames and bytes come on top.
DECODE_WORKER_BYTES = 200 << 20
# Ray Data keeps this many blocks in each actor's queue (pipeline.py).
BLOCKS_PER_ACTOR = 2
# The plan of a unit is read by a worker, by the driver when its rows come back, and by the proof.
PLAN_READS = 3
LISTED_PER_REQUEST = 1000


@dataclass(frozen=True, slots=True)
class Work:
    """What is left to do, and how it is cut."""

    num_clips: int
    num_units: int
    batch_size: int
    frame_bytes: int  # of one clip
    clip_bytes: float  # of one object, mean of the sample
    row_bytes: float  # of the table
    evidence_bytes: int  # of these, stored evidence
    clips_ahead: int  # objects on their way in a decode worker beside the one in use


@dataclass(frozen=True, slots=True)
class Needs:
    """What to provide; bytes."""

    decode_worker_bytes: int
    classify_worker_bytes: int
    object_store_bytes: int
    output_bytes: int
    evidence_bytes: int  # part of the output
    download_bytes: int
    get_requests: int
    put_requests: int
    list_requests: int


def needs_of(
    work: Work, *, resources: StageResources, num_cpus: int, child_peak_bytes: int, classify_worker_bytes: int
) -> Needs:
    """Needs of a run whose stages have `resources`; `num_cpus` stands for decode tasks without a limit."""
    block = work.batch_size * work.frame_bytes
    decode_tasks = resources.decode_tasks or max(1, math.floor(num_cpus / resources.decode_cpus))
    fetched = math.ceil((work.clips_ahead + 1) * work.clip_bytes)
    # Blocks being written by tasks, waiting for and being read by actors, and one between the two; of all groups but
    # the last, actors write blocks too.
    pools = resources.pools
    blocks = (
        decode_tasks + BLOCKS_PER_ACTOR * resources.classify_actors + sum(p.actors for p in pools[:-1]) + len(pools)
    )
    return Needs(
        decode_worker_bytes=DECODE_WORKER_BYTES + block + fetched + child_peak_bytes,
        classify_worker_bytes=classify_worker_bytes,
        object_store_bytes=blocks * block,
        output_bytes=math.ceil(work.num_clips * work.row_bytes),
        evidence_bytes=work.num_clips * work.evidence_bytes,
        download_bytes=math.ceil(work.num_clips * work.clip_bytes),
        get_requests=work.num_clips + work.num_units * (PLAN_READS + 1),
        put_requests=2 * work.num_units,
        list_requests=2 * math.ceil(work.num_units / LISTED_PER_REQUEST),
    )


def infer_seconds(seconds: Mapping[str, float], resources: StageResources) -> float:
    """Seconds per clip of one device, all pools together being as fast as the slowest; `seconds` by member."""
    if resources.device == "cpu" or not resources.groups:
        return sum(seconds.values())
    slowest = max(sum(seconds[name] for name in pool.members) / pool.actors for pool in resources.groups)
    return slowest * resources.classify_actors


def failure_interval(failed: int, *, of: int) -> tuple[float, float]:
    """95 % Wilson interval of the share that fails, from a sample.

    >>> tuple(round(edge, 2) for edge in failure_interval(3, of=32))
    (0.03, 0.24)
    """
    if of == 0:
        return 0.0, 1.0
    z = 1.959964
    share, spread = failed / of, z * z / of
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
