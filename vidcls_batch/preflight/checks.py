"""What a pre-flight objects to: each a rule over measured facts, an error that would hurt the run or a warning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from vidcls_batch.errors import ConfigError
from vidcls_batch.preflight.estimate import Needs, failure_interval
from vidcls_batch.resources import groups_text, groups_that_fit
from vidcls_batch.types import DecodeLimits

# Larger blocks outrun Ray Data's back-pressure.
LARGEST_BLOCK_BYTES = 128 << 20
# Ray takes this share of a machine's memory for the object store unless told otherwise.
STORE_SHARE = 0.3
NEAR_LIMIT = 0.8


@dataclass(frozen=True, slots=True)
class Finding:
    """One objection; `code` is stable, `message` says the value, what is allowed and the next step."""

    severity: Literal["error", "warning"]
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What the rules look at."""

    num_probed: int
    num_failed: int
    failures: Sequence[str]
    most_failures: float  # share borne
    longest_s: float
    largest_bytes: int
    slowest_decode_s: float
    limits: DecodeLimits
    block_bytes: int
    needs: Needs
    decode_workers: int
    classify_workers: int
    memory_bytes: int  # of this machine
    object_store_bytes: int | None  # as configured
    member_bytes: Mapping[str, int] = field(default_factory=dict)  # weights and one batch
    device_bytes: int | None = None  # of one GPU; None: members share the machine's memory
    cascade_first: Sequence[str] = ()
    groups: Sequence[Sequence[str]] = ()  # as the run will have them; none: one classifier holds all members


def findings_of(seen: Observed) -> list[Finding]:
    """All objections, errors first."""
    found = [finding for rule in _RULES for finding in rule(seen)]
    return sorted(found, key=lambda finding: finding.severity != "error")


def _too_many_failures(seen: Observed) -> list[Finding]:
    if not seen.num_failed:
        return []
    share = seen.num_failed / max(1, seen.num_probed)
    low, high = failure_interval(seen.num_failed, of=seen.num_probed)
    message = (
        f"{seen.num_failed} of {seen.num_probed} sampled clips failed ({share:.0%}; 95 % interval of all clips "
        f"{low:.0%} to {high:.0%}), {seen.most_failures:.0%} is borne (--max-failures). First: {seen.failures[0]}"
    )
    return [Finding("error" if share > seen.most_failures else "warning", "sample_failures", message)]


def _block_size(seen: Observed) -> list[Finding]:
    if seen.block_bytes <= LARGEST_BLOCK_BYTES:
        return []
    message = (
        f"A block of frames is {_mb(seen.block_bytes)}, more than {_mb(LARGEST_BLOCK_BYTES)}: the object store would "
        "fill faster than it can hold decoding back. Lower resources.batch_size, decode.short_side or sampling.views"
    )
    return [Finding("error", "block_too_large", message)]


def _object_store(seen: Observed) -> list[Finding]:
    offered = seen.object_store_bytes or int(seen.memory_bytes * STORE_SHARE)
    if seen.needs.object_store_bytes <= offered:
        return []
    message = (
        f"Blocks in flight take {_mb(seen.needs.object_store_bytes)}, the object store has {_mb(offered)}: Ray would "
        "spill to disk. Raise resources.object_store_mb, or lower resources.decode_tasks or batch_size"
    )
    return [Finding("error", "object_store_too_small", message)]


def _memory(seen: Observed) -> list[Finding]:
    needed = (
        seen.decode_workers * seen.needs.decode_worker_bytes
        + seen.classify_workers * seen.needs.classify_worker_bytes
        + seen.needs.object_store_bytes
    )
    if needed <= seen.memory_bytes:
        return []
    message = (
        f"{seen.decode_workers} decode and {seen.classify_workers} classifier workers take about {_mb(needed)} with "
        f"the object store; this machine has {_mb(seen.memory_bytes)}. Lower resources.classify_actors or decode_tasks"
    )
    return [Finding("error", "memory_too_small", message)]


def _near_limits(seen: Observed) -> list[Finding]:
    reached = {
        "decode.max_duration_s": (seen.longest_s, seen.limits.max_duration_s),
        "decode.max_bytes": (float(seen.largest_bytes), float(seen.limits.max_bytes)),
        "decode.timeout_s": (seen.slowest_decode_s, seen.limits.timeout_s),
    }
    return [
        Finding("warning", "near_limit", f"A sampled clip comes to {value:g} of {key}={limit:g}: larger ones will fail")
        for key, (value, limit) in reached.items()
        if NEAR_LIMIT * limit < value <= limit
    ]


def _members_fit_a_device(seen: Observed) -> list[Finding]:
    if seen.device_bytes is None:
        return []
    try:
        groups = groups_that_fit(seen.member_bytes, capacity=seen.device_bytes, first=seen.cascade_first)
    except ConfigError as error:
        return [Finding("error", "member_too_large", str(error))]
    if seen.groups:
        sizes = [sum(seen.member_bytes[name] for name in group) for group in seen.groups]
        too_large = [group for group, size in zip(seen.groups, sizes, strict=True) if size > seen.device_bytes]
        message = (
            f"resources.groups: {groups_text(too_large, seen.member_bytes)} does not fit a device, which has "
            f"{_mb(seen.device_bytes)}. These do: {groups_text(groups, seen.member_bytes)} (resources.groups: auto)"
        )
        return [Finding("error", "group_too_large", message)] if too_large else []
    if len(groups) <= 1:
        return []
    message = (
        f"The members take {_mb(sum(seen.member_bytes.values()))}, a device has {_mb(seen.device_bytes)}, and one "
        f"classifier holds all of them: they fit in {len(groups)} groups, {groups_text(groups, seen.member_bytes)}. "
        f"Set resources.groups: auto ({len(groups)} devices at once), make each group a run of its own over the same "
        "manifest, or lower resources.batch_size or members' precision"
    )
    return [Finding("error", "members_too_large", message)]


_RULES = (_too_many_failures, _block_size, _object_store, _memory, _near_limits, _members_fit_a_device)


def _mb(num_bytes: float) -> str:
    return f"{num_bytes / (1 << 20):,.0f} MiB"
