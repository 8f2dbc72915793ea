"""New labels over a finished run's stored evidence: another label set, prompts, weights, calibration or rule; no video.

The result is a run folder of its own with the same contracts. Members that the source run lacks are run first, they
alone, and merged.
"""

import json
import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import vidcls_batch
from vidcls_batch.config import Config, EnsembleConfig, resolved
from vidcls_batch.dataset.commit import CommittedUnit, commit_rows, pending_units, read_predictions
from vidcls_batch.dataset.plan import Plan
from vidcls_batch.dataset.plan_copy import copy_plan
from vidcls_batch.dataset.run_record import RunIdentity, RunRecord, run_identity, write_heads, write_run_record
from vidcls_batch.errors import ConfigError, Status
from vidcls_batch.label_sets import LabelSet, load_label_set
from vidcls_batch.labeling.aggregators import NO_VOTE, Aggregate, aggregate_votes
from vidcls_batch.labeling.cascade import score_in_steps
from vidcls_batch.labeling.labeler import MemberEvidence, label_clips, member_votes
from vidcls_batch.labeling_run import PROVENANCE_KEY, RunOutcome, proven_outcome, run_labeling
from vidcls_batch.labeling_setup import TABLE_RULES
from vidcls_batch.models.base import TextScorer
from vidcls_batch.models.registry import checkpoint_access
from vidcls_batch.planning import plan_run
from vidcls_batch.progress import RunProgress
from vidcls_batch.relabel_members import RelabelPlan, load_scorers, plan_members
from vidcls_batch.relabel_source import SourceRun, open_source, scored_rows
from vidcls_batch.schema import COST, DECODED, prediction_schema, reserved_columns, result_schema
from vidcls_batch.stages.classify import with_failures
from vidcls_batch.storage import StorageOptions, Store, open_store

ADDED = "added"  # where in the new folder the members that the source lacks are run
_KEPT = tuple(dict.fromkeys(["clip_id", *DECODED.names, *COST.names]))  # of the source's rows, besides evidence


@dataclass(frozen=True, slots=True)
class _Work:
    """What relabeling a unit needs."""

    source: SourceRun
    added: SourceRun | None
    plan: RelabelPlan
    scorers: list[TextScorer | None]


@dataclass(frozen=True, slots=True)
class _UnitEvidence:
    """A unit's rows in the plan's order, the positions that members were asked about, and what they said there."""

    rows: pa.Table
    asked: NDArray[np.int64]
    members: list[MemberEvidence]


def relabel_run(
    source_uri: str,
    *,
    config: Config,
    options: StorageOptions,
    progress: RunProgress,
    num_workers: int | None = None,
) -> RunOutcome:
    """Label every clip of the finished run at `source_uri` again from its evidence, into the folder `config.run`.

    The same call again resumes. Raises ConfigError before any work when the evidence for what `config` asks is not
    there, IncompleteRunError for a source that is not finished, RunMismatchError, StorageError, VerificationError.
    """
    started = time.monotonic()
    source = open_source(open_store(source_uri, options=options))
    store = open_store(config.run.path, options=options)
    if store.uri == source.store.uri:
        raise ConfigError(f"The new labels cannot go into the run itself, {store.uri}; give them a folder of their own")
    label_set = load_label_set(config.label_set)
    access = checkpoint_access(options)
    members = plan_members(config, source=source, label_set=label_set, access=access)
    _refuse_taken_names(source.plan, members)
    for line in members.setup.coverage.lines():
        progress.say(line)
    identity = _identity(config, source, members, label_set)
    plan = copy_plan(source.plan, source=source.store, target=store, identity=identity)
    pending = pending_units(store, plan)
    if pending:
        added = _run_added(config, members, source=source, store=store, options=options, progress=progress)
        work = _Work(source, added, members, load_scorers(members, label_set=label_set, access=access))
        record = _record(config, source, members, label_set)
        write_run_record(store, record)
        write_heads(store, {m.config.name: m.description.labels for m in members.members})
        _relabel(work, record, store=store, plan=plan, pending=pending, progress=progress, num_workers=num_workers)
    labeled = sum(plan.unit_size(unit) for unit in pending)
    return proven_outcome(store, plan, labeled=labeled, started=started)


def _relabel(
    work: _Work,
    record: RunRecord,
    *,
    store: Store,
    plan: Plan,
    pending: Sequence[int],
    progress: RunProgress,
    num_workers: int | None,
) -> None:
    import torch

    rule = str(record.config["ensemble"]["rule"])
    pooled = _pool_table(rule, work, plan, progress=progress) if rule in TABLE_RULES else None
    schema = prediction_schema(work.plan.columns, extras=plan.extra_schema)
    owner = secrets.token_hex(8)
    metadata = {PROVENANCE_KEY: json.dumps(asdict(record))}

    def commit(unit: int) -> CommittedUnit:
        known = None
        if pooled is not None:
            start = unit * plan.unit_clips
            known = pooled.over(len(work.plan.setup.settings.labels), rows=slice(start, start + plan.unit_size(unit)))
        rows = relabeled_rows(_read_evidence(work, unit), plan=work.plan, pooled=known)
        compression = str(record.config["output"]["compression"])
        return commit_rows(
            store, plan, unit, rows, schema=schema, owner=owner, metadata=metadata, compression=compression
        )

    done = plan.num_clips - sum(plan.unit_size(unit) for unit in pending)
    progress.start(total=plan.num_clips, done=done)
    workers = num_workers or len(os.sched_getaffinity(0))
    try:
        # Numpy, pyarrow and torch leave the interpreter's lock; a thread holds one unit at a time. Threads of torch's
        # own would fight these for the cores.
        with ThreadPoolExecutor(workers, "relabel", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            todo = iter(pending)
            running = {pool.submit(commit, unit) for unit in islice(todo, 2 * workers)}
            while running:
                finished = next(future for future in as_completed(running))
                running.remove(finished)
                progress.add(finished.result().statuses)
                running |= {pool.submit(commit, unit) for unit in islice(todo, 1)}
    finally:
        progress.finish()


def relabeled_rows(unit: _UnitEvidence, *, plan: RelabelPlan, pooled: NDArray[np.float32] | None = None) -> pa.Table:
    """The unit's rows with new labels: everything of `result_schema` that the plan's table does not hold."""
    num_rows = len(unit.rows)
    schema = result_schema(plan.columns)
    known = None if pooled is None else pooled[unit.asked]
    members, routes = _in_steps(unit, plan=plan)
    labeled = label_clips(members, settings=plan.setup.settings, columns=plan.columns, pooled=known)
    order = np.full(num_rows, -1)
    order[unit.asked] = np.arange(len(unit.asked))
    take = pa.array(order, mask=order < 0)
    columns = {name: unit.rows[name] for name in unit.rows.column_names if name in schema.names}
    whole = len(unit.asked) == num_rows
    for name, column in {**labeled.columns, "cascade": routes}.items():
        columns[name] = column if whole else column.combine_chunks().take(take)
    rows = _asked_rows_as_ok(pa.table(columns), unit.asked)
    failures = {int(unit.asked[i]): ("no_score", reason) for i, reason in labeled.unlabeled.items()}
    return with_failures(rows, failures)


def _in_steps(unit: _UnitEvidence, *, plan: RelabelPlan) -> tuple[list[MemberEvidence], pa.ChunkedArray]:
    """The members' evidence as a cascade would have asked for it, and its routes: so a cascade is tried out."""
    cascade = plan.setup.cascade
    if cascade is None or not len(unit.asked):
        return unit.members, pa.chunked_array([pa.nulls(len(unit.asked), pa.string())])
    ids = unit.rows["clip_id"].take(pa.array(unit.asked)).to_pylist()
    steps = score_in_steps(
        lambda m, rows: unit.members[m].part(rows), cascade=cascade, clip_ids=ids, settings=plan.setup.settings
    )
    members = [steps.members[m] for m in range(len(unit.members))]
    return members, pa.chunked_array([pa.array(steps.routes, pa.string())])


def _read_evidence(work: _Work, unit: int) -> _UnitEvidence:
    source, members = work.source, work.plan.members
    own = [name for m in members if not m.added for name in m.column_names()]
    rows = read_predictions(source.store, unit, columns=[*_KEPT, *own])
    asked = scored_rows(rows)
    some = rows if len(asked) == len(rows) else rows.take(pa.array(asked))
    others = None
    if work.added is not None:
        names = [name for m in members if m.added for name in m.column_names()]
        others = read_predictions(work.added.store, unit, columns=["clip_id", *names])
        if not others["clip_id"].equals(rows["clip_id"]):
            raise ConfigError(f"{work.added.store.uri} holds other clips in unit {unit} than {source.store.uri}")
        others = others if len(asked) == len(rows) else others.take(pa.array(asked))
    evidence = []
    for member, scorer in zip(members, work.scorers, strict=True):
        stored = others if member.added else some
        assert stored is not None  # members are only added together with their run
        evidence.append(member.evidence(stored, scorer=scorer))
    return _UnitEvidence(rows.select(list(_KEPT)), asked, evidence)


def _asked_rows_as_ok(rows: pa.Table, asked: NDArray[np.int64]) -> pa.Table:
    """Clips without a score may get one now: their failure is forgotten, and found again where it still holds."""
    ask = np.zeros(len(rows), np.bool_)
    ask[asked] = True
    mask = pa.array(ask)
    for name in ("status", "error_stage", "error_code", "error_message"):
        value = pa.scalar(Status.OK.value if name == "status" else None, pa.string())
        column = pc.if_else(mask, value, rows[name])
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def _pool_table(rule: str, work: _Work, plan: Plan, *, progress: RunProgress) -> Aggregate:
    """A first pass over all units for the members' votes, pooled at once."""
    progress.say(f"Reading the votes of {plan.num_clips:,} clips for {rule} ...")
    settings = work.plan.setup.settings
    votes = np.full((plan.num_clips, len(work.plan.members)), NO_VOTE, np.int32)
    for unit in range(plan.num_units):
        evidence = _read_evidence(work, unit)
        votes[unit * plan.unit_clips + evidence.asked] = member_votes(evidence.members, settings=settings)
    return aggregate_votes(rule, votes)


def _run_added(
    config: Config,
    members: RelabelPlan,
    *,
    source: SourceRun,
    store: Store,
    options: StorageOptions,
    progress: RunProgress,
) -> SourceRun | None:
    """Run the members that the source lacks, they alone, over the same clips."""
    if not members.added:
        return None
    embeds = any(m.added and "embedding" in m.kinds for m in members.members)
    context = any(m.added and "context" in m.kinds for m in members.members)
    output = {"member_logits": True, "member_embeddings": embeds, "member_context": context}
    alone = config.model_copy(
        update={
            "run": config.run.model_copy(update={"path": f"{store.uri}/{ADDED}"}),
            "members": members.added,
            "ensemble": EnsembleConfig(top_k=config.ensemble.top_k),
            "output": config.output.model_copy(update={**output, "unit_clips": source.plan.unit_clips}),
        }
    )
    progress.say(f"Running {', '.join(m.name for m in members.added)}, which {source.store.uri} does not have ...")
    planned = plan_run(alone, progress=progress)
    if planned.plan.manifest_digest != source.plan.manifest_digest:
        raise ConfigError(
            f"The manifest {config.manifest.path} is not the one that {source.store.uri} was made from; a new member "
            "has to see the same clips"
        )
    run_labeling(alone, progress=progress)
    return open_source(open_store(f"{store.uri}/{ADDED}", options=options))


def _refuse_taken_names(plan: Plan, members: RelabelPlan) -> None:
    taken = sorted(reserved_columns(members.columns) & set(plan.extra_schema.names))
    if taken:
        raise ConfigError(f"The manifest has a column {taken[0]!r}, which a member of this config would write")


def _identity(config: Config, source: SourceRun, members: RelabelPlan, label_set: LabelSet) -> RunIdentity:
    facts = {
        "relabeled_from": source.plan.fingerprint,
        "label_set": {"digest": label_set.digest},
        "label_texts": dict(members.text_digests),
        **members.setup.facts,
    }
    return run_identity(config, facts=facts)


def _record(config: Config, source: SourceRun, members: RelabelPlan, label_set: LabelSet) -> RunRecord:
    """The source's provenance with what is new, and where the evidence came from."""
    before = dict(source.record.provenance)
    known = {facts["name"]: facts for facts in before.get("members", [])}
    described = [
        known.get(m.config.name)
        or {key: value for key, value in asdict(m.description).items() if key != "labels"} | {"added": True}
        for m in members.members
    ]
    new = {
        "vidcls_batch": vidcls_batch.__version__,
        "label_set": {"name": label_set.name, "num_labels": len(label_set.labels), "digest": label_set.digest},
        "label_texts": dict(members.text_digests),
        "labeling_files": dict(members.setup.facts),
        "members": described,
        "relabeled_from": {
            "run": source.store.uri,
            "fingerprint": source.plan.fingerprint,
            "vidcls_batch": before.get("vidcls_batch"),
        },
    }
    return RunRecord(config=resolved(config), provenance=before | new)
