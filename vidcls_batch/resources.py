"""How much of the machine each stage gets: pure arithmetic from the config and what the cluster has."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from vidcls_batch.config import GroupConfig, ResourcesConfig
from vidcls_batch.errors import ConfigError

READ_CPUS, READ_TASKS = 0.05, 2  # of a task that reads a unit's clips; how many run at a time

# Blocks of this size keep the object store's back-pressure working; larger ones outrun it, smaller ones cost overhead.
BLOCK_BYTES = 64 << 20
LARGEST_AUTO_BATCH = 32
# Up to here each core of a CPU-only machine gets its own one-thread classifier: no thread hand-overs, and the
# operating system shares the cores between decoding and inference whichever of the two is slower.
MOST_CPU_ACTORS = 8


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a Ray cluster offers now. `private`: started by this process for this run alone."""

    num_cpus: int
    num_gpus: float
    private: bool


@dataclass(frozen=True, slots=True)
class GroupPool:
    """The classifiers of one group of members; names, none where each holds all members."""

    members: tuple[str, ...]
    actors: int
    initial_actors: int
    least_actors: int


@dataclass(frozen=True, slots=True)
class StageResources:
    """What each stage asks of Ray; None leaves it to Ray. Actors are those of all groups together."""

    batch_size: int
    decode_cpus: float
    decode_tasks: int | None
    decode_memory_mb: int | None
    classify_cpus: float
    classify_gpus: float
    classify_actors: int
    initial_actors: int
    least_actors: int  # never released below this while blocks may still come
    device: Literal["cpu", "cuda"]
    num_threads: int
    accelerator_type: str | None = None
    decode_labels: Mapping[str, str] = field(default_factory=dict)  # a node must have, on top
    classify_labels: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[GroupPool, ...] = ()  # in the order in which a block goes through them; none: one pool

    @property
    def pools(self) -> tuple[GroupPool, ...]:
        """The pools of classifiers, one at least."""
        one = GroupPool((), self.classify_actors, self.initial_actors, self.least_actors)
        return self.groups or (one,)

    def with_batch_size(self, batch_size: int) -> "StageResources":
        """The same with other blocks."""
        return replace(self, batch_size=batch_size)


def this_machine() -> Capacity:
    """This machine's cores and GPUs, as a private cluster would have them."""
    import torch

    return Capacity(num_cpus=len(os.sched_getaffinity(0)), num_gpus=float(torch.cuda.device_count()), private=True)


def batch_size_for(frame_bytes: int, *, config: ResourcesConfig) -> int:
    """Clips per block: the config's, else as many as fit BLOCK_BYTES, 1..LARGEST_AUTO_BATCH."""
    if config.batch_size is not None:
        return config.batch_size
    return max(1, min(LARGEST_AUTO_BATCH, BLOCK_BYTES // frame_bytes))


def logical_cpus(num_cpus: int) -> int:
    """CPUs a private cluster declares for `num_cpus` real ones: decode tasks and classifiers may fill them both.

    Ray never starts more than it has declared CPUs for; with just the real number, classifiers on a CPU-only machine
    would take cores from decoding even while they wait for it.
    """
    return 2 * num_cpus + 1


def stage_resources(
    config: ResourcesConfig, *, capacity: Capacity, frame_bytes: int, groups: Sequence[GroupConfig] = ()
) -> StageResources:
    """Settle every `None` of the config for this cluster. Raises ConfigError when a GPU is asked for but not there, or
    fewer than there are groups.
    """
    device = _device(config, capacity)
    batch = batch_size_for(frame_bytes, config=config)
    decode_tasks = config.decode_tasks
    if decode_tasks is None and capacity.private:
        decode_tasks = max(1, math.floor(capacity.num_cpus / config.decode_cpus))
    if device == "cuda":
        gpus = 1.0 if config.classify_gpus is None else config.classify_gpus
    else:  # A rehearsal on a cluster may hold the GPUs' places; alone on a machine nobody else wants them.
        gpus = 0.0 if capacity.private else config.classify_gpus or 0.0
    on_gpus = max(1, math.floor(capacity.num_gpus / gpus)) if gpus else 1
    if device == "cuda":
        present = on_gpus
        actors = config.classify_actors or present
        cpus = 0.5 if config.classify_cpus is None else config.classify_cpus
        threads = max(1, math.floor(cpus))
    else:
        threads = max(1, math.ceil(capacity.num_cpus / MOST_CPU_ACTORS))
        if config.classify_cpus is not None:
            threads = max(1, math.floor(config.classify_cpus))
        actors = config.classify_actors or (on_gpus if gpus else max(1, capacity.num_cpus // threads))
        present = on_gpus if gpus else actors
        cpus = 0.5 * threads if config.classify_cpus is None else config.classify_cpus
        if not capacity.private and not gpus and config.classify_cpus is None:
            # Not the whole core: where classifiers and decoding fill a machine, the tasks that read must find room.
            cpus, actors = threads - READ_TASKS * READ_CPUS, max(1, actors // 2)
    if gpus == 0:
        cpus = _unlike_decoding(cpus, config.decode_cpus)
    settled = StageResources(
        batch_size=batch,
        decode_cpus=config.decode_cpus,
        decode_tasks=decode_tasks,
        decode_memory_mb=config.decode_memory_mb,
        classify_cpus=cpus,
        classify_gpus=gpus,
        classify_actors=actors,
        initial_actors=min(actors, present),
        # Nobody else wants what a private cluster releases, and an actor's start costs as much as labeling 50 clips;
        # Ray Data would stop and start classifiers all through a run whose decoding is the slower half.
        least_actors=min(actors, present) if capacity.private else 1,
        device=device,
        num_threads=threads,
        accelerator_type=config.accelerator_type if device == "cuda" else None,
        decode_labels=config.decode_labels,
        classify_labels=config.classify_labels,
    )
    return settled if len(groups) <= 1 else _in_groups(settled, groups, capacity=capacity, present=present)


def _in_groups(
    settled: StageResources, groups: Sequence[GroupConfig], *, capacity: Capacity, present: int
) -> StageResources:
    """A pool for each group; together they reserve what the one pool would."""
    if settled.device == "cuda" and capacity.private and present < len(groups):
        raise ConfigError(
            f"{len(groups)} groups of members need {len(groups)} GPUs at once, this machine has room for {present} "
            "classifiers: take a machine with more, lower resources.classify_gpus where several groups fit one GPU, or "
            "make each group a run of its own over the same manifest"
        )
    shares = even_shares(settled.classify_actors, len(groups))
    most = [group.actors or share for group, share in zip(groups, shares, strict=True)]
    there = most if sum(most) <= present else even_shares(present, len(groups))
    pools = tuple(
        GroupPool(
            members=group.members,
            actors=actors,
            initial_actors=min(actors, now),
            least_actors=min(actors, now) if capacity.private else 1,
        )
        for group, actors, now in zip(groups, most, there, strict=True)
    )
    cpus, total = settled.classify_cpus, sum(most)
    if settled.device == "cpu" and total > settled.classify_actors:
        # More pools than cores: a pool that finds no CPU left to reserve would wait for ever, and the blocks with it.
        share = max(0.01, math.floor(100 * cpus * settled.classify_actors / total) / 100)
        cpus = _unlike_decoding(share, settled.decode_cpus)
    return replace(
        settled,
        classify_cpus=cpus,
        classify_actors=total,
        initial_actors=sum(pool.initial_actors for pool in pools),
        least_actors=sum(pool.least_actors for pool in pools),
        groups=pools,
    )


def _unlike_decoding(cpus: float, decode_cpus: float) -> float:
    """Equal remote arguments let Ray Data fuse decoding into the classifier; never more than `cpus`, which may be all
    that is left.
    """
    return cpus - 0.01 if cpus == decode_cpus else cpus


def even_shares(total: int, count: int) -> list[int]:
    """`total` shared out evenly, one each at least; the first get what is left over.

    >>> even_shares(5, 3), even_shares(1, 2)
    ([2, 2, 1], [1, 1])
    """
    return [max(1, total // count + (index < total % count)) for index in range(count)]


def group_by_memory(sizes: Mapping[str, int], *, capacity: int) -> list[list[str]]:
    """The fewest groups of members whose bytes fit `capacity` together, members in their given order.

    Exact: an ensemble has a dozen members at most. Raises ConfigError that names a member too large by itself.

    >>> group_by_memory({"a": 6, "b": 5, "c": 4, "d": 3}, capacity=9)
    [['a', 'd'], ['b', 'c']]
    """
    for name, size in sizes.items():
        if size > capacity:
            raise ConfigError(
                f"member {name} takes {size >> 20:,} MiB by itself, a device has {capacity >> 20:,} MiB: lower "
                "resources.batch_size, its sampling.views or its precision, or take a larger device"
            )
    names = list(sizes)
    # For each set of members, a bit mask: the fewest groups, how full the last one is, and its last member.
    best: list[tuple[int, int, int]] = [(0, capacity, -1)] * (1 << len(names))
    for chosen in range(1, 1 << len(names)):
        found = []
        for index in (i for i in range(len(names)) if chosen >> i & 1):
            count, filled, _ = best[chosen & ~(1 << index)]
            size = sizes[names[index]]
            fits = filled + size <= capacity
            found.append((count, filled + size, index) if fits else (count + 1, size, index))
        best[chosen] = min(found)
    groups: list[list[int]] = []
    chosen = len(best) - 1
    while chosen:
        count, _, index = best[chosen]
        if len(groups) < best[-1][0] - count + 1:
            groups.append([])
        groups[-1].append(index)
        chosen &= ~(1 << index)
    return [[names[index] for index in sorted(group)] for group in sorted(sorted(group) for group in groups)]


def groups_that_fit(sizes: Mapping[str, int], *, capacity: int, first: Sequence[str] = ()) -> list[list[str]]:
    """`group_by_memory` where the members in `first` are in one group, which comes first.

    >>> groups_that_fit({"a": 6, "b": 5, "c": 4, "d": 3}, capacity=9, first=["c", "d"])
    [['c', 'd'], ['a'], ['b']]
    """
    together = " + ".join(first)
    items = {name: size for name, size in sizes.items() if name not in first}
    if first:
        items = {together: sum(sizes[name] for name in first), **items}
    groups = group_by_memory(items, capacity=capacity)
    return [
        [member for name in group for member in (first if first and name == together else [name])] for group in groups
    ]


def groups_text(groups: Sequence[Sequence[str]], sizes: Mapping[str, int]) -> str:
    """`a + b (300 MiB); c (200 MiB)`."""
    return "; ".join(f"{' + '.join(g)} ({sum(sizes[name] for name in g) / (1 << 20):,.0f} MiB)" for g in groups)


def _device(config: ResourcesConfig, capacity: Capacity) -> Literal["cpu", "cuda"]:
    if config.device != "auto":
        if config.device == "cuda" and capacity.private and capacity.num_gpus == 0:
            raise ConfigError("resources.device is cuda but this machine has no GPU; use auto or cpu")
        return config.device
    wants_gpu = capacity.num_gpus > 0 or bool(config.classify_gpus)
    return "cuda" if wants_gpu else "cpu"
