"""A pre-flight as text for people and as JSON for scripts."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vidcls_batch.preflight.preflight import Preflight
from vidcls_batch.preflight.prices import RunCost
from vidcls_batch.progress import format_duration
from vidcls_batch.resources import groups_text

_SHOWN_FAILURES = 5


def as_json(found: Preflight) -> dict[str, Any]:
    """All facts as plain values; frames left out."""
    probe = found.probe
    return {
        "clips_to_label": found.clips_to_label,
        "hours_on_this_machine": found.rate.hours(found.clips_to_label),
        "clips_per_s_on_this_machine": found.rate.clips_per_s,
        "limited_by": found.rate.limit,
        "ceilings_clips_per_s": found.rate.ceilings,
        "machine": {"cpus": found.num_cpus, "gpus": found.num_gpus, "device": found.device},
        "sample": {
            "clips": probe.num_clips,
            "statuses": dict(probe.statuses),
            "codecs": dict(probe.codecs),
            "sizes": dict(probe.sizes),
            "durations_s": probe.durations_s,
            "num_bytes": probe.num_bytes,
            "failures": probe.failures,
        },
        "seconds_per_clip": asdict(found.cost) | {m.name: m.clip_s for m in found.members},
        "members": [asdict(m) for m in found.members],
        "cores_per_gpu": found.cores_per_gpu,
        "device": {"bytes": found.device_bytes, "members": dict(found.member_bytes)},
        "groups": [asdict(pool) for pool in found.pools],
        "needs": asdict(found.needs) | {"row_bytes": found.row_bytes},
        "findings": [asdict(f) for f in found.findings],
        "cost": None if found.prices is None else found.prices.model_dump(),
    }


def as_text(found: Preflight) -> str:
    """A page a person can decide by."""
    lines = [
        "",
        f"Pre-flight from {found.probe.num_clips} sampled clips, on this machine "
        f"({found.num_cpus} CPUs, {found.num_gpus} GPUs):",
        *_sample_lines(found),
        *_time_lines(found),
        *_needs_lines(found),
        *(_price_lines(found.prices) if found.prices else []),
        *(f"  {f.severity:<9} {f.message}" for f in found.findings),
    ]
    return "\n".join(lines)


def _sample_lines(found: Preflight) -> list[str]:
    probe = found.probe
    lines = [f"  clips     {_counts(probe.codecs)}; {_counts(probe.sizes)}; {_counts(probe.statuses)}"]
    if probe.durations_s and probe.num_bytes:
        lengths = f"{statistics.median(probe.durations_s):.1f} s (longest {max(probe.durations_s):.1f} s)"
        sizes = f"{statistics.fmean(probe.num_bytes) / 1e6:.2f} MB"
        lines.append(f"  length    median {lengths}, mean {sizes}")
    return lines + [f"  failed    {line}" for line in probe.failures[:_SHOWN_FAILURES]]


def _time_lines(found: Preflight) -> list[str]:
    cost, rate = found.cost, found.rate
    each = ", ".join(f"{m.name} {m.clip_s * 1000:.1f} ms" for m in found.members)
    lines = [
        f"  a clip    fetch {cost.fetch_s * 1000:.1f} ms, decode {cost.decode_s * 1000:.1f} ms, {each}",
        f"  time      {format_duration(rate.hours(found.clips_to_label) * 3600)} here for {found.clips_to_label:,} "
        f"clips ({rate.clips_per_s:,.1f} clips/s), limited by {rate.limit}",
    ]
    if found.cores_per_gpu is not None:
        lines.append(f"  CPU:GPU   {found.cores_per_gpu:.1f} decoding cores keep one GPU busy")
    else:
        hours = [s * found.clips_to_label / 3600 for s in (cost.decode_s, cost.infer_s)]
        lines.append(
            f"  CPU:GPU   {hours[0]:,.2f} core-hours decode, {hours[1]:,.2f} core-hours classify; a GPU that scores a "
            f"clip in N ms is kept busy by {cost.decode_s * 1000:.1f}/N cores"
        )
    return lines


def _needs_lines(found: Preflight) -> list[str]:
    needs = found.needs
    return [
        f"  memory    decode worker {_mib(needs.decode_worker_bytes)}, classifier {_mib(needs.classify_worker_bytes)}, "
        f"object store {_mib(needs.object_store_bytes)}",
        f"  output    {needs.output_bytes / 1e6:,.1f} MB ({found.row_bytes:,.0f} bytes a row, of which stored evidence "
        f"{needs.evidence_bytes / max(1, found.clips_to_label):,.0f})",
        f"  requests  {needs.get_requests:,} GET, {needs.put_requests:,} PUT, {needs.list_requests:,} LIST; "
        f"{needs.download_bytes / 1e9:,.2f} GB read",
        *_device_lines(found),
        *_group_lines(found),
    ]


def _device_lines(found: Preflight) -> list[str]:
    if found.device_bytes is None:
        return []
    total = sum(found.member_bytes.values())
    fits = "more than one device holds, see below"
    if total <= found.device_bytes:
        fits = "one holds all"
    elif found.pools:
        fits = "in groups"
    return [f"  device    members {_mib(total)} of {_mib(found.device_bytes)}: {fits}"]


def _group_lines(found: Preflight) -> list[str]:
    """Each group with what it takes and how fast its pool is: the slowest one is what the others wait for."""
    seconds = {m.name: m.clip_s for m in found.members}
    return [
        f"  group {number}   {groups_text([pool.members], found.member_bytes)}: "
        f"{1000 * sum(seconds[name] for name in pool.members):.1f} ms a clip, {pool.actors} classifiers"
        for number, pool in enumerate(found.pools, start=1)
    ]


def _price_lines(prices: RunCost) -> list[str]:
    lines = []
    for machine in prices.machines:
        if machine.cost is None or machine.hours is None:
            lines.append(f"  cost      {machine.name}: not known, {machine.note}")
        else:
            lines.append(
                f"  cost      {machine.name}: {machine.cost:,.2f} {prices.currency}, {machine.hours:,.2f} hours, "
                f"limited by {machine.limit}"
            )
    lines.append(
        f"            beside that: requests {prices.requests:,.2f}, transfer {prices.transfer:,.2f}, storage "
        f"{prices.storage_month:,.2f} a month ({prices.source})"
    )
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda c: -c[1])) or "none"


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / (1 << 20):,.0f} MiB"
