"""What a finished run keeps of its clips: rows and members' evidence, checked against what a new config asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidcls_batch.config import Config, MemberConfig, parse_config
from vidcls_batch.dataset.plan import Plan, require_plan
from vidcls_batch.dataset.run_record import RunRecord, read_heads, read_run_record
from vidcls_batch.dataset.unit_files import read_predictions
from vidcls_batch.dataset.verify import is_marked_success
from vidcls_batch.errors import ConfigError, IncompleteRunError, Status
from vidcls_batch.labeling.labeler import MemberEvidence
from vidcls_batch.models.base import InputSpec, MemberDescription
from vidcls_batch.storage import Store
from vidcls_batch.types import Sampling, SoundWindow

# What made a member's evidence; another value is another member.
_MADE_BY = ("family", "checkpoint", "sampling", "precision")


@dataclass(frozen=True, slots=True)
class SourceRun:
    """A finished run as a source of evidence."""

    store: Store
    plan: Plan
    record: RunRecord
    config: Config
    heads: Mapping[str, tuple[str, ...]]
    columns: frozenset[str]  # of its table

    def description(self, member: MemberConfig) -> MemberDescription:
        """What the run recorded of a member, with its outputs' names. Raises ConfigError when `member` is another."""
        recorded = next(m for m in self.config.members if m.name == member.name)
        for key in _MADE_BY:
            old, new = getattr(recorded, key), getattr(member, key)
            if old != new:
                raise ConfigError(
                    f"members.{member.name}.{key} is {new!r}, but the evidence in {self.store.uri} was made with "
                    f"{old!r}; set it back, or give the member a new name to have it scored"
                )
        if member.revision not in (None, recorded.revision):
            raise ConfigError(
                f"members.{member.name}.revision is {member.revision!r}, the evidence is of {recorded.revision!r}"
            )
        facts = next(m for m in self.record.provenance["members"] if m["name"] == member.name)
        return _description(facts, labels=self.heads[member.name])

    def has(self, member: str, kind: str) -> bool:
        """Whether the table keeps `logits`, `embedding` or `context` of a member."""
        return f"{member}_{kind}" in self.columns


def open_source(store: Store) -> SourceRun:
    """A run folder to take evidence from. Raises IncompleteRunError unless it is finished, StorageError."""
    plan = require_plan(store)
    if not is_marked_success(store):
        raise IncompleteRunError(f"{store.uri} is not finished and verified; finish it with `vidcls run` first")
    record = read_run_record(store)
    return SourceRun(
        store=store,
        plan=plan,
        record=record,
        config=parse_config(dict(record.config), source=f"{store.uri}/run.json"),
        heads=read_heads(store),
        columns=frozenset(read_predictions(store, 0, columns=None).slice(0, 0).column_names),
    )


def scored_rows(rows: pa.Table) -> NDArray[np.int64]:
    """Positions of the rows that members were asked about, whether or not one had an answer."""
    no_score = pc.fill_null(pc.equal(rows["error_code"], "no_score"), False)
    return np.flatnonzero(pc.or_(pc.equal(rows["status"], Status.OK.value), no_score).to_numpy())


def stored_floats(rows: pa.Table, column: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A column of fixed-size lists as float32 [B, width], and which rows have one; the others hold zeros."""
    lists = rows[column].combine_chunks()
    chunk = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    present = chunk.is_valid().to_numpy(zero_copy_only=False)
    width = chunk.type.list_size
    values = chunk.values.slice(chunk.offset * width, len(chunk) * width)
    floats = values.to_numpy(zero_copy_only=False).reshape(len(chunk), width).astype(np.float32)
    if not present.all():
        floats[~present] = 0
    return floats, present


def stored_evidence(rows: pa.Table, member: str, *, kinds: frozenset[str]) -> MemberEvidence:
    """A member's evidence from the run's own columns; `kinds` are those to read."""
    found: dict[str, NDArray[np.float32]] = {}
    present = np.ones(len(rows), np.bool_)
    for kind in sorted(kinds):
        found[kind], here = stored_floats(rows, f"{member}_{kind}")
        present &= here
    logits = found.get("logits", np.zeros((len(rows), 0), np.float32))
    return MemberEvidence(logits, found.get("embedding"), found.get("context"), present)


def _description(facts: Mapping[str, Any], *, labels: tuple[str, ...]) -> MemberDescription:
    spec, sound = facts["input"], facts.get("sound")
    made = None
    if spec is not None:
        lists = {key: tuple(value) for key, value in spec.items() if isinstance(value, list)}
        made = InputSpec(**{**spec, **lists, "sampling": Sampling(**spec["sampling"])})
    known = {key: value for key, value in facts.items() if key != "weights_sha256"}
    return MemberDescription(
        **{
            **known,
            "input": made,
            "sound": None if sound is None else SoundWindow(**sound),
            "labels": labels,
            "prompts": tuple(facts["prompts"]),
        }
    )
