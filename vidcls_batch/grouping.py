"""Which members share a classifier: as the config says, or in the fewest groups that fit a device, measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from vidcls_batch.config import GroupConfig
from vidcls_batch.pipeline import run_where_classifiers_run
from vidcls_batch.preflight.member_timing import member_bytes, time_members, timing_block
from vidcls_batch.preflight.memory import device_bytes
from vidcls_batch.progress import RunProgress
from vidcls_batch.resources import Capacity, StageResources, groups_text, groups_that_fit, stage_resources
from vidcls_batch.run_spec import RunSpec


@dataclass(frozen=True, slots=True)
class MemberMemory:
    """What each member takes with its weights and one batch, and what a device has; bytes, None: no limit."""

    members: Mapping[str, int]
    device: int | None


def run_resources(spec: RunSpec, *, capacity: Capacity, progress: RunProgress) -> StageResources:
    """What the stages of a run get on this cluster, a pool for each group of members. Raises ConfigError."""
    config = spec.config.resources
    alone = stage_resources(config, capacity=capacity, frame_bytes=spec.frame_bytes)
    groups = config.groups if isinstance(config.groups, tuple) else ()
    if config.groups == "auto" and len(spec.members) > 1:
        progress.say("Measuring how much memory each member takes ...")
        found = run_where_classifiers_run(partial(measure_members, spec, resources=alone), resources=alone)
        groups = fewest_groups(spec, found)
        sizes = groups_text([group.members for group in groups], found.members)
        progress.say(f"{len(groups)} groups of members: {sizes}" if groups else "One device holds all members")
    return stage_resources(config, capacity=capacity, frame_bytes=spec.frame_bytes, groups=groups)


def fewest_groups(spec: RunSpec, memory: MemberMemory) -> tuple[GroupConfig, ...]:
    """The fewest groups that fit a device, those that a cascade asks first in the first; none where all fit together.

    Raises ConfigError where a member fits no device.
    """
    if memory.device is None:
        return ()
    groups = groups_that_fit(memory.members, capacity=memory.device, first=spec.config.ensemble.asked_first)
    return tuple(GroupConfig(members=tuple(group)) for group in groups) if len(groups) > 1 else ()


def measure_members(spec: RunSpec, *, resources: StageResources) -> MemberMemory:
    """Load each member alone, on this machine's device, and score a batch of black clips with it."""
    available = device_bytes(spec.config.resources.device_memory_mb, device=resources.device)
    if available is None:
        return MemberMemory({}, None)
    block = timing_block([], spec=spec, batch_size=resources.batch_size, device=resources.device)
    timings = time_members(spec, settings=spec.classify_settings(resources), block=block, seconds=0)
    return MemberMemory(member_bytes(timings), available)
