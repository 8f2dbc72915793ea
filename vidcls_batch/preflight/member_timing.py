"""What each member costs on this machine, and how large a row of the table is: the real classifier stage, timed."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from vidcls_batch.dataset.commit import joined
from vidcls_batch.dataset.unit_files import encode_unit
from vidcls_batch.errors import Status
from vidcls_batch.preflight.memory import resident_bytes
from vidcls_batch.run_spec import RunSpec
from vidcls_batch.schema import DECODED, ROUTE
from vidcls_batch.stages.classify import BlockClassifier, ClassifySettings
from vidcls_batch.stages.decode import FRAMES, with_sound
from vidcls_batch.stages.host_memory import give_freed_memory_back
from vidcls_batch.stages.member_groups import member_groups

# On a CPU a clip costs the same in a small batch; on a GPU only a full one shows what the device can do.
CPU_BATCH = 4
MOST_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class MemberTiming:
    """One member in one classifier worker."""

    name: str
    clip_s: float  # wall per clip of the worker: `num_threads` cores, or one device
    load_s: float
    memory_bytes: int  # what this process grew by, weights and one batch; of the host's memory, not the device's
    device_bytes: int | None = None  # the most it held on a GPU


@dataclass(frozen=True, slots=True)
class Classified:
    """All members together over the sampled clips."""

    rows: pa.Table  # `schema.result_schema`
    worker_bytes: int  # this process when it holds all members, or its largest group


def timing_block(blocks: Sequence[pa.Table], *, spec: RunSpec, batch_size: int, device: str) -> pa.Table:
    """`batch_size` clips (CPU_BATCH at most on a CPU): the sampled ones over and over, else black ones."""
    size = batch_size if device == "cuda" else min(batch_size, CPU_BATCH)
    if not blocks:
        return _black_clips(size, spec)
    times = math.ceil(size / len(blocks))
    return pa.concat_tables([*blocks] * times).slice(0, size).combine_chunks()


def time_members(
    spec: RunSpec,
    *,
    settings: ClassifySettings,
    block: pa.Table,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[MemberTiming]:
    """Load each member alone, score `block` once to warm up, then for its share of `seconds`; at least once."""
    share = seconds / len(settings.members)
    return [_time_alone(index, settings, block, share, clock) for index in range(len(settings.members))]


def member_bytes(timings: Sequence[MemberTiming]) -> dict[str, int]:
    """Of the device's memory where members ran on one, else of the host's."""
    return {m.name: m.memory_bytes if m.device_bytes is None else m.device_bytes for m in timings}


def _time_alone(
    index: int, settings: ClassifySettings, block: pa.Table, seconds: float, clock: Callable[[], float]
) -> MemberTiming:
    give_freed_memory_back()  # the member before this one
    before, started = resident_bytes(), clock()
    if settings.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    member, labeling = settings.members[index], settings.labeling.of_member(index)
    alone = BlockClassifier(
        replace(settings, members=(member,), columns=(settings.columns[index],), labeling=labeling, cascade=None)
    )
    loaded = clock()
    alone(block)
    rounds = [_timed(alone, block, clock)]
    while len(rounds) < MOST_ROUNDS and clock() - loaded + rounds[-1] < seconds:
        rounds.append(_timed(alone, block, clock))
    return MemberTiming(
        name=member.name,
        clip_s=min(rounds) / len(block),
        load_s=loaded - started,
        memory_bytes=max(0, resident_bytes() - before),
        device_bytes=torch.cuda.max_memory_reserved() if settings.device == "cuda" else None,
    )


def classify_sample(
    blocks: Sequence[pa.Table], *, spec: RunSpec, settings: ClassifySettings, groups: Sequence[Sequence[str]] = ()
) -> Classified:
    """Rows of the sampled clips by the whole ensemble, as a run would write them; one group of members at a time."""
    passed = list(blocks or [_black_clips(1, spec)])
    names = [member.name for member in settings.members]
    workers = [settings.in_group(group) for group in member_groups(names, groups)] or [settings]
    largest = 0
    for worker in workers:
        classifier = BlockClassifier(worker)
        passed = [classifier(block) for block in passed]
        largest = max(largest, resident_bytes())
        del classifier
        give_freed_memory_back()
    return Classified(rows=pa.concat_tables(passed), worker_bytes=largest)


def row_bytes(rows: pa.Table, *, clips: pa.Table, schema: pa.Schema, compression: str) -> float:
    """Bytes of a committed row, from encoding `rows` joined with their `clips` as a unit's file; its footer aside."""
    results = rows.drop_columns(ROUTE.names)
    table = joined(clips, results, schema=schema)

    def size(part: pa.Table) -> int:
        encoded = encode_unit(part, unit=0, owner="", fingerprint="", metadata={}, compression=compression)
        return len(encoded)

    return (size(table) - size(table.slice(0, 0))) / max(1, len(table))


def evidence_bytes(schema: pa.Schema) -> int:
    """Bytes a row's stored evidence (logits, embeddings) takes: lists of fixed length, which hardly compress."""
    fixed = [f.type for f in schema if pa.types.is_fixed_size_list(f.type)]
    return sum(t.list_size * t.value_type.bit_width // 8 for t in fixed)


def _timed(classifier: BlockClassifier, block: pa.Table, clock: Callable[[], float]) -> float:
    started = clock()
    classifier(block)
    return clock() - started


def _black_clips(size: int, spec: RunSpec) -> pa.Table:
    rows = [{"unit": 0, "clip_id": f"black-{i}", "status": Status.OK.value, "attempts": 1} for i in range(size)]
    table = pa.Table.from_pylist(rows, schema=pa.schema([*ROUTE, *DECODED]))
    frames = np.zeros((size, *spec.request.frames_shape), np.uint8)
    block = table.append_column(FRAMES, pa.FixedShapeTensorArray.from_numpy_ndarray(frames))
    sounds = spec.request.sounds
    if not sounds:
        return block
    lengths = np.tile(np.array([w.num_samples for w in sounds], np.int32), (size, 1))
    return with_sound(block, np.zeros((size, spec.request.num_samples), np.float32), lengths)
