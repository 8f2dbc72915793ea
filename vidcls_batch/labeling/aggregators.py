"""Aggregators that learn how good each member is from the votes of a whole table (crowd-kit, an extra)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidcls_batch.errors import ConfigError

# Names of crowd-kit's classes; its Wawa and ZeroBasedSkill do not run with scikit-learn 1.9.
AGGREGATORS: Mapping[str, str] = {
    "dawid_skene": "DawidSkene",
    "one_coin_dawid_skene": "OneCoinDawidSkene",
    "mace": "MACE",
    "glad": "GLAD",
}
NO_VOTE = -1


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Probabilities [N, L] of N clips over the labels that got any vote; a clip without votes has zeros."""

    label_ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    def over(self, num_labels: int, *, rows: slice) -> NDArray[np.float32]:
        """Of some clips over all labels, [B, num_labels]."""
        some = self.probabilities[rows]
        whole = np.zeros((len(some), num_labels), np.float32)
        whole[:, self.label_ids] = some
        return whole


def aggregate_votes(rule: str, votes: NDArray[np.integer]) -> Aggregate:
    """Pool the first labels [N, M] of M members, NO_VOTE where one has none. Raises ConfigError without crowd-kit."""
    import pandas as pd

    clips, members = np.nonzero(votes != NO_VOTE)
    labels = votes[clips, members]
    known = np.unique(labels)
    table = pd.DataFrame({"task": clips, "worker": members, "label": labels})
    found = _aggregator(rule)().fit_predict_proba(table)
    probabilities = np.zeros((len(votes), len(known)), np.float32)
    probabilities[found.index.to_numpy()] = found[known.tolist()].to_numpy(np.float32)
    return Aggregate(known.astype(np.int64), probabilities)


def _aggregator(rule: str) -> Callable[[], Any]:
    try:
        from crowdkit import aggregation
    except ImportError as error:
        raise ConfigError(
            f"ensemble.rule {rule} needs crowd-kit; install it with: pip install 'vidcls-batch[crowd]'"
        ) from error
    kind: Callable[[], Any] = getattr(aggregation, AGGREGATORS[rule])
    return kind
