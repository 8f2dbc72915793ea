"""A finished run folder made of numbers: plan, run.json and a table with evidence, without a video or a model."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from vidcls_batch.config import Config, parse_config, resolved
from vidcls_batch.dataset.commit import commit_rows, read_predictions
from vidcls_batch.dataset.plan import make_plan, read_unit
from vidcls_batch.dataset.run_record import RunRecord, run_identity, write_heads, write_run_record
from vidcls_batch.dataset.verify import mark_success, verify_run
from vidcls_batch.label_sets import load_label_set
from vidcls_batch.labeling.labeler import MemberEvidence, label_clips
from vidcls_batch.labeling_setup import set_up_labeling
from vidcls_batch.models.base import InputSpec, MemberDescription
from vidcls_batch.models.registry import member_texts
from vidcls_batch.models.zero_shot import texts_digest
from vidcls_batch.schema import COST, DECODED, MemberColumns, prediction_schema, reserved_columns
from vidcls_batch.storage import StorageOptions, open_store
from vidcls_batch.types import Sampling

FACTS = {"status": "ok", "attempts": 1, "duration_s": 10.0, "fps": 25.0, "width": 340, "height": 256, "codec": "h264"}


@dataclass(frozen=True)
class RandomMember:
    """A member to be: `labels` None makes it zero-shot over the run's label set."""

    name: str
    labels: tuple[str, ...] | None = None
    embedding_dim: int | None = None
    checkpoint: str = "none"
    family: str = "videomae"


Evidence = Callable[[int, int], list[MemberEvidence]]
"""Unit number and its number of clips -> what each member says of them."""


def write_evidence_run(
    folder: Path,
    *,
    num_clips: int,
    unit_clips: int,
    labels: Sequence[str] | str,
    members: Sequence[RandomMember],
    evidence: Evidence,
    statuses: Callable[[int], str] = lambda _: "ok",
    ensemble: dict[str, object] | None = None,
) -> Config:
    """Write the run and return its config; `statuses` gives each clip's, by its number."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.parquet"
    ids = [f"clip-{i:08d}" for i in range(num_clips)]
    pd.DataFrame({"clip_id": ids, "uri": [f"/clips/{i}.mp4" for i in ids]}).to_parquet(manifest)
    config = parse_config(
        {
            "run": str(folder / "run"),
            "manifest": str(manifest),
            "label_set": labels if isinstance(labels, str) else list(labels),
            "members": [{"name": m.name, "family": m.family, "checkpoint": m.checkpoint} for m in members],
            "ensemble": ensemble or {},
            "output": {"unit_clips": unit_clips, "member_logits": True, "member_embeddings": True},
        }
    )
    label_set = load_label_set(config.label_set)
    described = [_describe(m, label_set.labels) for m in members]
    setup = set_up_labeling(config, label_set=label_set, members=described)
    columns = [MemberColumns(m.name, len(m.labels), m.embedding_dim) for m in described]
    store = open_store(config.run.path, options=StorageOptions())
    plan = make_plan(
        config,
        store=store,
        options=StorageOptions(),
        identity=run_identity(config),
        reserved=reserved_columns(columns),
    )
    facts = [{k: v for k, v in asdict(m).items() if k != "labels"} for m in described]
    texts = {
        m.name: texts_digest(member_texts(c, m, labels=label_set.labels, aliases=((),) * len(label_set.labels)))
        for c, m in zip(config.members, described, strict=True)
        if m.zero_shot
    }
    provenance = {"members": facts, "label_texts": texts}
    write_run_record(store, RunRecord(config=resolved(config), provenance=provenance))
    write_heads(store, {m.name: m.labels for m in described})
    schema = prediction_schema(columns, extras=plan.extra_schema)
    for unit in range(plan.num_units):
        size = plan.unit_size(unit)
        clips = read_unit(store, unit)
        labeled = label_clips(evidence(unit, size), settings=setup.settings, columns=columns)
        known = dict.fromkeys([*DECODED.names, *COST.names]) | FACTS
        rows = pa.table(
            {"clip_id": clips["clip_id"]}
            | {n: pa.array([v] * size, [*DECODED, *COST][i].type) for i, (n, v) in enumerate(known.items())}
            | dict(labeled.columns)
        )
        rows = _with_statuses(rows, [statuses(unit * unit_clips + i) for i in range(size)])
        commit_rows(store, plan, unit, rows, schema=schema, owner="bench", metadata={}, compression="zstd")
    mark_success(store, verify_run(store, plan))
    assert read_predictions(store, 0).num_rows
    return config


def random_evidence(members: Sequence[RandomMember], *, labels: Sequence[str], seed: int = 0) -> Evidence:
    """Members that more or less agree: a label drawn for each clip, and noise of their own."""

    def draw(unit: int, size: int) -> list[MemberEvidence]:
        rng = np.random.default_rng([seed, unit])
        truth = rng.integers(0, len(labels), size)
        found = []
        for member in members:
            names = list(member.labels or labels)
            outputs = np.array([names.index(label) for label in labels])
            logits = rng.standard_normal((size, len(names)), np.float32) * 2
            logits[np.arange(size), outputs[truth]] += 5
            dim = member.embedding_dim
            found.append(MemberEvidence(logits, None if dim is None else rng.standard_normal((size, dim), np.float32)))
        return found

    return draw


def _with_statuses(rows: pa.Table, statuses: list[str]) -> pa.Table:
    failed = np.array(statuses) != "ok"
    if not failed.any():
        return rows
    take = pa.array(np.arange(len(rows)), mask=failed)
    decided = [n for n in rows.column_names if n not in ("clip_id", *DECODED.names, *COST.names)]
    for name in decided:
        rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].combine_chunks().take(take))
    return rows.set_column(rows.schema.get_field_index("status"), "status", pa.array(statuses))


def _describe(member: RandomMember, labels: tuple[str, ...]) -> MemberDescription:
    return MemberDescription(
        name=member.name,
        family=member.family,
        input=InputSpec(Sampling(num_frames=8), 224, 224, 224, (0.5,) * 3, (0.5,) * 3),
        labels=member.labels or labels,
        zero_shot=member.labels is None,
        prompts=("a video of {}",) if member.labels is None else (),
        embedding_dim=member.embedding_dim,
        checkpoint=member.checkpoint,
        revision=None,
        licence=None,
        preprocessing_from="nothing",
    )
