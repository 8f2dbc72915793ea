"""Members of one ensemble in several classifiers: what one group says of a block travels beside its frames to the next.

Evidence crosses as float32, as members give it, so labels are the same numbers as if one classifier held all members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vidcls_batch.labeling.labeler import MemberEvidence
from vidcls_batch.stages.decode import tensor_of

INFER_MS = "infer_ms"  # of the groups so far; the table's column in the end
_PREFIX = "evidence."  # no column of the table has a dot


@dataclass(frozen=True, slots=True)
class EvidenceWidths:
    """How many numbers of one member travel to the last group; None: nobody looks at these."""

    logits: int
    embedding: int | None = None
    context: int | None = None


@dataclass(frozen=True, slots=True)
class MemberGroup:
    """The members that one classifier holds, and those that groups before it have scored, as positions in the run."""

    held: tuple[int, ...]
    known: tuple[int, ...]
    is_last: bool  # it makes the labels


@dataclass(frozen=True, slots=True)
class GroupEvidence:
    """What one group's members, by position, say of the clips at `indices` of a block."""

    indices: NDArray[np.int64]
    members: Mapping[int, MemberEvidence]


def member_groups(names: Sequence[str], groups: Sequence[Sequence[str]]) -> list[MemberGroup]:
    """The groups in the order in which a block goes through them.

    >>> member_groups(["a", "b", "c"], [["c", "a"], ["b"]])[1]
    MemberGroup(held=(1,), known=(0, 2), is_last=True)
    """
    found: list[MemberGroup] = []
    known: tuple[int, ...] = ()
    for number, group in enumerate(groups, start=1):
        held = tuple(sorted(names.index(name) for name in group))
        found.append(MemberGroup(held=held, known=known, is_last=number == len(groups)))
        known = tuple(sorted((*known, *held)))
    return found


def with_evidence(
    block: pa.Table, scored: Sequence[GroupEvidence], *, held: Sequence[int], widths: Sequence[EvidenceWidths]
) -> pa.Table:
    """The block with columns for what the members `held` say of its clips; zeros where they were not asked."""
    for member in held:
        for name, width in (
            ("logits", widths[member].logits),
            ("embedding", widths[member].embedding),
            ("context", widths[member].context),
        ):
            if width is None:
                continue
            values = np.zeros((len(block), width), np.float32)
            for some in scored:
                if (given := getattr(some.members[member], name)) is not None:
                    values[some.indices] = given
            block = block.append_column(_column(member, name), pa.FixedShapeTensorArray.from_numpy_ndarray(values))
        block = block.append_column(_column(member, "present"), _presence(len(block), member, scored))
    return block


def evidence_in(
    block: pa.Table, *, known: Sequence[int], widths: Sequence[EvidenceWidths]
) -> dict[int, MemberEvidence]:
    """What the groups before said of each clip of the block, by member's position."""
    found = {}
    for member in known:
        values: dict[str, NDArray[Any] | None] = {
            name: None if getattr(widths[member], name) is None else tensor_of(block, _column(member, name))
            for name in ("logits", "embedding", "context")
        }
        present = block[_column(member, "present")].combine_chunks()
        # A null says that the member gave no mask: for such clips it always has a score.
        if present.null_count < len(present):
            values["present"] = np.asarray(present.fill_null(True).to_numpy(zero_copy_only=False), np.bool_)
        found[member] = MemberEvidence(**values)  # type: ignore[arg-type]
    return found


def _presence(rows: int, member: int, scored: Sequence[GroupEvidence]) -> pa.Array:
    values, unknown = np.ones(rows, np.bool_), np.ones(rows, np.bool_)
    for some in scored:
        present = some.members[member].present
        if present is not None:
            values[some.indices], unknown[some.indices] = present, False
    return pa.array(values, mask=unknown)


def _column(member: int, name: str) -> str:
    return f"{_PREFIX}{member}.{name}"
