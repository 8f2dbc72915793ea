"""`vidcls map`: a first draft of which of the run's labels a member's labels stand for, by the similarity of texts."""

from dataclasses import dataclass
from pathlib import Path

from vidcls_batch.config import Config, MemberConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.label_sets import load_label_set
from vidcls_batch.labeling.mapping_file import UNMAPPED, nearest_labels, write_proposal
from vidcls_batch.models.registry import checkpoint_access, describe_member, embed_label_names
from vidcls_batch.storage import storage_options


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was written."""

    out: str
    member: str
    encoder: str
    num_labels: int
    num_unmapped: int

    def __str__(self) -> str:
        return (
            f"{self.num_labels} labels of {self.member} compared by {self.encoder}'s text encoder, "
            f"{self.num_unmapped} left unmapped: {self.out}\nReview it line by line, set reviewed: true, then give it "
            f"to the member as `mapping: {self.out}`"
        )


def propose_mapping(config: Config, *, member: str, encoder: str | None, unmapped_below: float, out: Path) -> Proposal:
    """Write a mapping for review. Raises ConfigError on unknown members or an encoder that reads no texts."""
    access = checkpoint_access(storage_options(config.run))
    label_set = load_label_set(config.label_set)
    mapped = _member(config, member)
    described = describe_member(mapped, labels=label_set.labels, access=access)
    if described.zero_shot:
        raise ConfigError(f"members.{member} is zero-shot: it scores the run's labels as they are and needs no mapping")
    reader = _member(config, encoder) if encoder is not None else _first_zero_shot(config, label_set.labels)
    run = embed_label_names(reader, [entry.names for entry in label_set.entries], access=access)
    head = embed_label_names(reader, [(_spoken(name),) for name in described.labels], access=access)
    proposals = nearest_labels(head.numpy(), run.numpy(), run_labels=label_set.labels, unmapped_below=unmapped_below)
    write_proposal(out, head_labels=described.labels, proposals=proposals)
    unmapped = sum(label == UNMAPPED for label, _ in proposals)
    return Proposal(str(out), member, reader.name, len(proposals), unmapped)


def _member(config: Config, name: str) -> MemberConfig:
    for member in config.members:
        if member.name == name:
            return member
    raise ConfigError(f"{name!r} is no member of this config; members: {', '.join(m.name for m in config.members)}")


def _first_zero_shot(config: Config, labels: tuple[str, ...]) -> MemberConfig:
    access = checkpoint_access(storage_options(config.run))
    for member in config.members:
        if describe_member(member, labels=labels, access=access).zero_shot:
            return member
    raise ConfigError("No member of this config is zero-shot, so no text encoder can compare labels; add one")


def _spoken(label: str) -> str:
    return label.replace("_", " ")
