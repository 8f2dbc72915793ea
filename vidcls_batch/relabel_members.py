"""Where each member of a relabeling gets its evidence from, settled and checked before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vidcls_batch.config import Config, MemberConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.label_sets import LabelSet, load_label_set
from vidcls_batch.labeling.labeler import MemberEvidence
from vidcls_batch.labeling_setup import LabelingSetup, set_up_labeling
from vidcls_batch.models.base import MemberDescription, TextScorer
from vidcls_batch.models.checkpoints import CheckpointAccess
from vidcls_batch.models.registry import describe_member, load_text_scorer, member_texts
from vidcls_batch.models.zero_shot import load_templates, texts_digest
from vidcls_batch.relabel_source import SourceRun, stored_evidence
from vidcls_batch.schema import MemberColumns

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """One member: what it is, and which stored columns of `kinds` its scores come from.

    `rescored`: its label texts are new, so that logits are made from embeddings. `added`: the source run lacks it.
    """

    config: MemberConfig
    description: MemberDescription
    kinds: frozenset[str]
    rescored: bool = False
    added: bool = False

    def evidence(self, rows: pa.Table, *, scorer: TextScorer | None) -> MemberEvidence:
        """The member's evidence from stored columns."""
        found = stored_evidence(rows, self.config.name, kinds=self.kinds)
        if scorer is None:
            return found
        assert found.embedding is not None
        return replace(found, logits=_scored(scorer, found.embedding, found.context))

    def column_names(self) -> list[str]:
        """The stored columns it reads."""
        return [f"{self.config.name}_{kind}" for kind in sorted(self.kinds)]


@dataclass(frozen=True, slots=True)
class RelabelPlan:
    """All members in the config's order, and how their scores become labels."""

    members: tuple[MemberPlan, ...]
    setup: LabelingSetup
    columns: tuple[MemberColumns, ...]
    text_digests: Mapping[str, str]

    @property
    def added(self) -> tuple[MemberConfig, ...]:
        """Members to run first."""
        return tuple(m.config for m in self.members if m.added)


def plan_members(config: Config, *, source: SourceRun, label_set: LabelSet, access: CheckpointAccess) -> RelabelPlan:
    """Settle all members. Raises ConfigError when what the config asks for is not in the source's evidence."""
    known = {m.name for m in source.config.members}
    digests: dict[str, str] = {}
    found = []
    for member in config.members:
        if member.name not in known:
            description = describe_member(member, labels=label_set.labels, access=access)
            found.append(MemberPlan(member, description, frozenset({"logits"}), added=True))
        else:
            found.append(_known_member(member, source=source, label_set=label_set))
        if found[-1].description.zero_shot:
            digests[member.name] = _digest(found[-1].config, found[-1].description, label_set)
    setup = set_up_labeling(config, label_set=label_set, members=[m.description for m in found], whole_table=True)
    members = tuple(_with_kept_kinds(m, config=config, setup=setup) for m in found)
    for plan in members:
        if not plan.added:
            _require_evidence(plan, source=source)
    return RelabelPlan(members, setup, tuple(_columns(m, config) for m in members), digests)


def load_scorers(plan: RelabelPlan, *, label_set: LabelSet, access: CheckpointAccess) -> list[TextScorer | None]:
    """For each member what makes its logits from embeddings, None where they are stored. Raises CheckpointError."""
    aliases = tuple(entry.aliases for entry in label_set.entries)
    return [
        load_text_scorer(m.config, labels=label_set.labels, aliases=aliases, access=access) if m.rescored else None
        for m in plan.members
    ]


def _known_member(member: MemberConfig, *, source: SourceRun, label_set: LabelSet) -> MemberPlan:
    description = source.description(member)
    recorded = next(m for m in source.config.members if m.name == member.name)
    pinned = member.model_copy(update={"revision": recorded.revision})
    if not description.zero_shot:
        return MemberPlan(pinned, _renamed_head(member, description), frozenset({"logits"}))
    now = replace(
        description,
        labels=(*label_set.labels, *member.negative_prompts),
        prompts=load_templates(member.prompts, where=f"members.{member.name}"),
    )
    same_texts = source.record.provenance["label_texts"].get(member.name) == _digest(member, now, label_set)
    if same_texts and source.has(member.name, "logits"):
        return MemberPlan(pinned, now, frozenset({"logits"}))
    kinds = frozenset({"embedding"} if now.context_dim is None else {"embedding", "context"})
    return MemberPlan(pinned, now, kinds, rescored=True)


def _renamed_head(member: MemberConfig, description: MemberDescription) -> MemberDescription:
    if member.labels is None:
        return description
    names = load_label_set(member.labels).labels
    if len(names) != len(description.labels):
        raise CheckpointError(
            f"members.{member.name}.labels has {len(names)} names, but its stored logits are {len(description.labels)}"
        )
    return replace(description, labels=names)


def _digest(member: MemberConfig, description: MemberDescription, label_set: LabelSet) -> str:
    aliases = tuple(entry.aliases for entry in label_set.entries)
    return texts_digest(member_texts(member, description, labels=label_set.labels, aliases=aliases))


def _with_kept_kinds(plan: MemberPlan, *, config: Config, setup: LabelingSetup) -> MemberPlan:
    kinds = set(plan.kinds)
    output, described = config.output, plan.description
    if (output.member_embeddings and described.embedding_dim is not None) or described.name in setup.embeds:
        kinds.add("embedding")
    if output.member_context and described.context_dim is not None:
        kinds.add("context")
    return replace(plan, kinds=frozenset(kinds))


_REMEDY = {
    "logits": "output.member_logits",
    "embedding": "output.member_embeddings",
    "context": "output.member_context",
}


def _require_evidence(plan: MemberPlan, *, source: SourceRun) -> None:
    name = plan.config.name
    lacking = [kind for kind in _REMEDY if kind in plan.kinds and not source.has(name, kind)]
    if lacking:
        why = "its label texts are new" if plan.rescored else "this config needs it"
        raise ConfigError(
            f"members.{name}: {source.store.uri} keeps no {' and no '.join(lacking)} of it, and {why}. Label the clips "
            f"again with {' and '.join(f'{_REMEDY[kind]}: true' for kind in lacking)}, or leave the member out"
        )


def _columns(plan: MemberPlan, config: Config) -> MemberColumns:
    output, described = config.output, plan.description
    return MemberColumns(
        name=described.name,
        num_logits=len(described.labels) if output.member_logits else None,
        embedding_dim=described.embedding_dim if output.member_embeddings else None,
        context_dim=described.context_dim if output.member_context else None,
    )


def _scored(
    scorer: TextScorer, embedding: NDArray[np.floating], context: NDArray[np.floating] | None
) -> NDArray[np.float32]:
    import torch

    parts = []
    for start in range(0, len(embedding), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        some = None if context is None else torch.from_numpy(context[rows])
        parts.append(scorer(torch.from_numpy(embedding[rows]), some).numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
