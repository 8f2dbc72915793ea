"""From a head's outputs to the run's label ids: the same names in any order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.errors import ConfigError

_SHOWN_NAMES = 5


def head_to_run_labels(head_labels: Sequence[str], *, run_labels: Sequence[str], member: str = "") -> NDArray[np.intp]:
    """The run's label id of each head output, one each way: `run_logits[:, ids] = head_logits`.

    Names are equal when they differ only in case, or in spaces against underscores. Raises ConfigError that names the
    differences when the two are not the same set of names; `member` says whose head it is.

    >>> head_to_run_labels(["Riding_Bike", "abseiling"], run_labels=["abseiling", "riding bike"]).tolist()
    [1, 0]
    """
    owner = f"members.{member}: " if member else ""
    head = _by_name(head_labels, whose=f"{owner}the head")
    run = _by_name(run_labels, whose=f"{owner}the run's label set")
    lacking = [run_labels[i] for name, i in run.items() if name not in head]
    extra = [head_labels[i] for name, i in head.items() if name not in run]
    if lacking or extra:
        raise ConfigError(
            f"{owner}the head scores {len(head)} labels, the run's label set has {len(run)}, and they are not the same "
            f"names. Only in the label set: {_shown(lacking)}. Only in the head: {_shown(extra)}. Set label_set to the "
            "head's names, or give the member's `labels` where its checkpoint names its outputs wrongly"
        )
    return np.array([run[name] for name in head], dtype=np.intp)


def _by_name(labels: Sequence[str], *, whose: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for index, label in enumerate(labels):
        name = " ".join(label.replace("_", " ").casefold().split())
        if name in found:
            raise ConfigError(f"{whose} holds {labels[found[name]]!r} and {label!r}, which read the same")
        found[name] = index
    return found


def _shown(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(repr(name) for name in names[:_SHOWN_NAMES]) + more
