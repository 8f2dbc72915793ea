"""From a head's outputs to the run's label ids: the same names in any order."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.errors import ConfigError

_SHOWN_NAMES = 5


def _spaced(label: str) -> str:
    return " ".join(label.replace("_", " ").casefold().split())


def _letters(label: str) -> str:
    return "".join(c for c in label.casefold() if c.isalnum())


# Published lists of the same classes differ in case, underscores, quotes and brackets. The strictest form that makes
# the two lists equal is used, so that a looser one never joins names that a stricter one tells apart.
_FORMS: tuple[Callable[[str], str], ...] = (str, _spaced, _letters)


def head_to_run_labels(head_labels: Sequence[str], *, run_labels: Sequence[str], member: str = "") -> NDArray[np.intp]:
    """The run's label id of each head output, one each way: `run_logits[:, ids] = head_logits`.

    Names are equal when they differ only in case, spaces, underscores or punctuation. Raises ConfigError that names
    the differences when the two are not the same set of names; `member` says whose head it is.

    >>> head_to_run_labels(["Riding_Bike", "abseiling"], run_labels=["abseiling", "riding bike"]).tolist()
    [1, 0]
    """
    for form in _FORMS:
        head, run = [form(label) for label in head_labels], [form(label) for label in run_labels]
        if len(set(head)) == len(head) == len(run) and set(head) == set(run):
            ids = {name: index for index, name in enumerate(run)}
            return np.array([ids[name] for name in head], dtype=np.intp)
    raise ConfigError(_differences(head_labels, run_labels, owner=f"members.{member}: " if member else ""))


def _differences(head_labels: Sequence[str], run_labels: Sequence[str], *, owner: str) -> str:
    head, run = {_letters(label) for label in head_labels}, {_letters(label) for label in run_labels}
    lacking = [label for label in run_labels if _letters(label) not in head]
    extra = [label for label in head_labels if _letters(label) not in run]
    return (
        f"{owner}the head scores {len(head_labels)} labels, the run's label set has {len(run_labels)}, and they are "
        f"not the same names. Only in the label set: {_shown(lacking)}. Only in the head: {_shown(extra)}. Set "
        "label_set to the head's names, or give the member's `labels` where its checkpoint names its outputs wrongly"
    )


def _shown(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(repr(name) for name in names[:_SHOWN_NAMES]) + more
