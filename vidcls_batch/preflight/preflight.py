"""A pre-flight: probe a sample, time the members here, say what the whole run will take. Changes nothing."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from vidcls_batch.config import GroupConfig
from vidcls_batch.dataset.plan import read_unit
from vidcls_batch.errors import ConfigError
from vidcls_batch.planning import PlannedRun
from vidcls_batch.preflight.checks import Finding, Observed, findings_of
from vidcls_batch.preflight.estimate import Needs, Work, infer_seconds, needs_of
from vidcls_batch.preflight.member_timing import (
    MemberTiming,
    classify_sample,
    evidence_bytes,
    member_bytes,
    row_bytes,
    time_members,
    timing_block,
)
from vidcls_batch.preflight.memory import device_bytes, total_bytes
from vidcls_batch.preflight.prices import Prices, RunCost, run_cost
from vidcls_batch.preflight.probe import Probe, probe_clips
from vidcls_batch.preflight.rates import ClipCost, Fleet, Rate, cores_per_gpu, fleet_rate
from vidcls_batch.preflight.sample import sample_clips
from vidcls_batch.progress import RunProgress
from vidcls_batch.resources import (
    Capacity,
    GroupPool,
    StageResources,
    groups_that_fit,
    stage_resources,
    this_machine,
)
from vidcls_batch.run_spec import RunSpec

# Of the given seconds; members get the rest.
PROBE_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class PreflightSettings:
    """How thorough a pre-flight is."""

    num_clips: int = 24
    seconds: float = 60.0  # for probing and timing together; loading models and a clip's own limits come on top
    seed: int = 0
    most_failures: float = 0.2  # share of the sample


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the sample says of the whole run."""

    clips_to_label: int
    probe: Probe
    members: tuple[MemberTiming, ...]
    device: str
    num_cpus: int
    num_gpus: int
    cost: ClipCost
    rate: Rate  # of this machine
    cores_per_gpu: float | None
    needs: Needs
    row_bytes: float
    device_bytes: int | None  # of one GPU
    member_bytes: Mapping[str, int]  # of each member there, weights and one batch
    pools: tuple[GroupPool, ...]  # of classifiers, one for each group of members; none: one pool of all
    findings: tuple[Finding, ...]
    prices: RunCost | None

    @property
    def errors(self) -> list[Finding]:
        """What should stop the run before it starts."""
        return [f for f in self.findings if f.severity == "error"]


def run_preflight(
    planned: PlannedRun, *, settings: PreflightSettings, prices: Prices | None, progress: RunProgress
) -> Preflight:
    """Probe clips that have no row yet (any clips, when all have one). Raises what loading the members raises."""
    spec, plan = planned.spec, planned.plan
    units = planned.pending or tuple(range(plan.num_units))
    capacity = this_machine()
    resources = stage_resources(spec.config.resources, capacity=capacity, frame_bytes=spec.frame_bytes)
    progress.say(f"Probing up to {settings.num_clips} clips ...")
    clips = sample_clips(plan, store=planned.store, units=units, num_clips=settings.num_clips, seed=settings.seed)
    decode = spec.decode_settings()
    probe = probe_clips(clips, settings=decode, seconds=settings.seconds * PROBE_SHARE, keep=resources.batch_size)
    progress.say(f"Timing {len(spec.members)} members on {resources.device} ...")
    classify = spec.classify_settings(resources)
    block = timing_block(probe.blocks, spec=spec, batch_size=resources.batch_size, device=resources.device)
    members = time_members(spec, settings=classify, block=block, seconds=settings.seconds * (1 - PROBE_SHARE))
    seen_bytes = member_bytes(members)
    of_device = device_bytes(spec.config.resources.device_memory_mb, device=resources.device)
    resources, in_sample = _grouped(spec, resources, seen_bytes, of_device, capacity)
    sample = classify_sample(probe.blocks, spec=spec, settings=classify, groups=in_sample)
    schema = spec.schema(plan.extra_schema)
    one_row = row_bytes(
        sample.rows,
        clips=_planned_rows(planned, sample.rows),
        schema=schema,
        compression=spec.config.output.compression,
    )
    to_label = sum(plan.unit_size(unit) for unit in units)
    work = Work(
        num_clips=to_label,
        num_units=len(units),
        batch_size=resources.batch_size,
        frame_bytes=spec.frame_bytes,
        clip_bytes=_mean(probe.num_bytes),
        row_bytes=one_row,
        evidence_bytes=evidence_bytes(schema),
        clips_ahead=decode.fetch.clips_ahead,
    )
    needs = needs_of(
        work,
        resources=resources,
        num_cpus=capacity.num_cpus,
        child_peak_bytes=probe.child_peak_bytes,
        classify_worker_bytes=sample.worker_bytes,
    )
    cost = ClipCost(
        fetch_s=_mean(probe.fetch_s),
        decode_s=_mean(probe.decode_s),
        infer_s=infer_seconds({m.name: m.clip_s for m in members}, resources)
        * (1 if resources.device == "cuda" else resources.num_threads),
        on_gpu=resources.device == "cuda",
        fetches_at_once=decode.fetch.clips_ahead + 1,
    )
    seen = replace(
        _observed(probe, planned, needs, resources, capacity, work, settings),
        member_bytes=seen_bytes,
        device_bytes=of_device,
        cascade_first=spec.config.ensemble.asked_first,
        groups=[pool.members for pool in resources.groups],
    )
    return Preflight(
        clips_to_label=to_label,
        probe=probe,
        members=tuple(members),
        device=resources.device,
        num_cpus=capacity.num_cpus,
        num_gpus=int(capacity.num_gpus),
        cost=cost,
        rate=fleet_rate(cost, Fleet(cores=capacity.num_cpus, gpus=capacity.num_gpus)),
        cores_per_gpu=cores_per_gpu(cost),
        needs=needs,
        row_bytes=one_row,
        device_bytes=seen.device_bytes,
        member_bytes=seen_bytes,
        pools=resources.groups,
        findings=tuple(findings_of(seen)),
        prices=None if prices is None else run_cost(prices, cost=cost, needs=needs, num_clips=to_label),
    )


def _grouped(
    spec: RunSpec, resources: StageResources, sizes: Mapping[str, int], of_device: int | None, capacity: Capacity
) -> tuple[StageResources, Sequence[Sequence[str]]]:
    """What the run will have, and the groups in which this machine can hold the members here."""
    config = spec.config.resources
    fitting: list[list[str]] = []
    if of_device is not None:
        with suppress(ConfigError):  # a member that is too large: the checks say so
            fitting = groups_that_fit(sizes, capacity=of_device, first=spec.config.ensemble.asked_first)
    groups = config.groups if isinstance(config.groups, tuple) else ()
    if config.groups == "auto" and len(fitting) > 1:
        groups = tuple(GroupConfig(members=tuple(group)) for group in fitting)
    settled = stage_resources(config, capacity=capacity, frame_bytes=spec.frame_bytes, groups=groups)
    return settled, [pool.members for pool in settled.groups] or (fitting if resources.device == "cuda" else [])


def _planned_rows(planned: PlannedRun, rows: pa.Table) -> pa.Table:
    """The plan's columns of the same clips, in the same order; of any clips where the sample has none of its own."""
    parts = []
    for row in rows.select(["unit", "clip_id"]).to_pylist():
        unit = read_unit(planned.store, row["unit"])
        own = unit.filter(pc.equal(unit["clip_id"], row["clip_id"]))
        parts.append(own if len(own) else unit.slice(0, 1))
    return pa.concat_tables(parts)


def _observed(
    probe: Probe,
    planned: PlannedRun,
    needs: Needs,
    resources: StageResources,
    capacity: Capacity,
    work: Work,
    settings: PreflightSettings,
) -> Observed:
    config = planned.spec.config
    store_mb = config.resources.object_store_mb
    return Observed(
        num_probed=probe.num_clips,
        num_failed=probe.num_failed,
        failures=probe.failures,
        most_failures=settings.most_failures,
        longest_s=max(probe.durations_s, default=0.0),
        largest_bytes=max(probe.num_bytes, default=0),
        slowest_decode_s=max(probe.decode_s, default=0.0),
        limits=config.decode.limits,
        block_bytes=work.batch_size * work.frame_bytes,
        needs=needs,
        decode_workers=resources.decode_tasks or capacity.num_cpus,
        classify_workers=resources.classify_actors,
        memory_bytes=total_bytes(),
        object_store_bytes=None if store_mb is None else store_mb << 20,
    )


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
