"""From a member's label space to the run's: which output speaks for which label."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.errors import ConfigError
from vidcls_batch.label_sets import LabelSet
from vidcls_batch.labeling.ensemble import Mask, Scores, softmax

_Value = TypeVar("_Value")
_SHOWN_NAMES = 5
_SHARES_SUM_TO = 1.0
_SHARE_TOLERANCE = 1e-6


def _spaced(label: str) -> str:
    return " ".join(label.replace("_", " ").casefold().split())


def _letters(label: str) -> str:
    return "".join(c for c in label.casefold() if c.isalnum())


# Published lists of the same classes differ in case, underscores, quotes and brackets. From strict to loose: what a
# stricter form has matched, a looser one no longer can, so that it never joins names that a stricter one tells apart.
_FORMS: tuple[Callable[[str], str], ...] = (str, _spaced, _letters)


# Head output -> the run's labels it stands for, with the share of its probability each gets; {} for "unmapped".
Targets = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class LabelMap:
    """Entries (`head_ids[e]`, `run_ids[e]`, `shares[e]`): so much of a head's probability goes to a label of the run.

    Outputs without an entry are unmapped: what the head says is read as if they did not exist, so that the rest sums
    to 1. Labels without an entry get 0, and the ensemble asks the other members about them (`covers`).
    """

    num_outputs: int
    num_labels: int
    head_ids: NDArray[np.intp]
    run_ids: NDArray[np.intp]
    shares: NDArray[np.float64]

    @property
    def covers(self) -> Mask:
        """Which labels of the run the head can predict, bool [K]."""
        known = np.zeros(self.num_labels, np.bool_)
        known[self.run_ids] = True
        return known

    @property
    def mapped_outputs(self) -> int:
        """How many of the head's outputs stand for some label."""
        return len(np.unique(self.head_ids))

    def probabilities(self, logits: NDArray[np.floating]) -> Scores:
        """Probabilities over the run's labels [B, K] from the head's logits [B, num_outputs]."""
        head = np.unique(self.head_ids)
        whole = len(head) == self.num_outputs
        scores = softmax(logits if whole else logits[:, head])
        if len(head) == len(self.head_ids) == len(np.unique(self.run_ids)):
            run_ids = self.run_ids[np.argsort(self.head_ids)]
            if (
                whole
                and self.num_outputs == self.num_labels
                and (self.run_ids[np.argsort(self.head_ids)] == head).all()
            ):
                return scores
            found = np.zeros((len(scores), self.num_labels), scores.dtype)
            found[:, run_ids] = scores
            return found
        matrix = np.zeros((len(head), self.num_labels), scores.dtype)
        matrix[np.searchsorted(head, self.head_ids), self.run_ids] = self.shares
        return np.asarray(scores @ matrix)


def identity_map(num_labels: int) -> LabelMap:
    """The map of a head whose outputs are the run's labels in their order."""
    ids = np.arange(num_labels)
    return LabelMap(num_labels, num_labels, ids, ids, np.ones(num_labels))


def map_labels(
    head_labels: Sequence[str],
    *,
    label_set: LabelSet,
    member: str = "",
    targets: Targets | None = None,
    rest: bool = True,
) -> LabelMap:
    """Which of the run's labels each output of a head stands for.

    `targets` says so for the outputs it names; with `rest` the others go by name: equal to a label's or an alias's but
    for case, spaces, underscores and punctuation. Raises ConfigError on names in `targets` that are none, on shares
    that are no shares, and when no output finds a label.
    """
    owner = f"members.{member}: " if member else ""
    given = targets or {}
    _check_targets(given, head_labels=head_labels, run_labels=label_set.labels, owner=owner)
    by_name = _same_names(head_labels, label_set) if rest else {}
    run_id = {name: index for index, name in enumerate(label_set.labels)}
    entries: list[tuple[int, int, float]] = []
    for head_id, name in enumerate(head_labels):
        if name in given:
            entries += [(head_id, run_id[label], share) for label, share in given[name].items()]
        elif head_id in by_name:
            entries.append((head_id, by_name[head_id], 1.0))
    if not entries:
        raise ConfigError(_no_overlap(head_labels, label_set.labels, owner=owner))
    heads, runs, shares = zip(*entries, strict=True)
    return LabelMap(
        len(head_labels), len(label_set.labels), np.array(heads), np.array(runs), np.array(shares, dtype=np.float64)
    )


def _same_names(head_labels: Sequence[str], label_set: LabelSet) -> dict[int, int]:
    """Head id -> run id by equal names or aliases, each name on either side used once."""
    heads = dict(enumerate(head_labels))
    names = {name: run_id for run_id, entry in enumerate(label_set.entries) for name in entry.names}
    found: dict[int, int] = {}
    for form in _FORMS:
        by_form = _only_ones((form(name), name) for name in names)
        for spelled, head_id in _only_ones((form(name), head_id) for head_id, name in heads.items()).items():
            if spelled in by_form:
                found[head_id] = names.pop(by_form[spelled])
                del heads[head_id]
    return found


def _only_ones(pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    """The pairs whose key occurs once."""
    groups: dict[str, list[_Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return {key: values[0] for key, values in groups.items() if len(values) == 1}


def _check_targets(targets: Targets, *, head_labels: Sequence[str], run_labels: Sequence[str], owner: str) -> None:
    for name, shares in targets.items():
        if name not in head_labels:
            raise ConfigError(f"{owner}mapping: {name!r} is no output of the head{_near(name, head_labels)}")
        for label, share in shares.items():
            if label not in run_labels:
                raise ConfigError(
                    f"{owner}mapping of {name!r}: {label!r} is no label of the run{_near(label, run_labels)}"
                )
            if not 0 < share <= 1:
                raise ConfigError(f"{owner}mapping of {name!r}: the share of {label!r} is {share}, not in (0, 1]")
        total = sum(shares.values())
        if shares and abs(total - _SHARES_SUM_TO) > _SHARE_TOLERANCE:
            raise ConfigError(
                f"{owner}mapping of {name!r}: its shares sum to {total:g}, not 1; scale them, or write `unmapped`"
            )


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f". Did you mean {near[0]!r}?" if near else f"; it has {_shown(list(known))}"


def _no_overlap(head_labels: Sequence[str], run_labels: Sequence[str], *, owner: str) -> str:
    return (
        f"{owner}none of the {len(head_labels)} labels its head scores is one of the {len(run_labels)} in the run's "
        f"label set. Only in the label set: {_shown(list(run_labels))}. Only in the head: {_shown(list(head_labels))}. "
        "Set label_set to the head's names, give the member a `mapping` (propose one: vidcls map), or its `labels` "
        "where the checkpoint names its outputs wrongly"
    )


def _shown(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(repr(name) for name in names[:_SHOWN_NAMES]) + more
