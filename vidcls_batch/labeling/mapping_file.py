"""A mapping from a member's labels to the run's as a YAML file that people read, change and approve."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from vidcls_batch.errors import ConfigError
from vidcls_batch.labeling.mapping import Targets

UNMAPPED = "unmapped"
_KEYS = ("reviewed", "rest", "map")
_HEADER = """\
# Proposed by the similarity of texts; nothing reads it before a person has: check each line, then set `reviewed: true`.
# head label: run label, or {run label: share, ...} with shares that sum to 1, or unmapped.
# `rest`: what happens to head labels not listed here: match (by equal names and aliases) or unmapped.
"""


@dataclass(frozen=True, slots=True)
class MappingFile:
    """What a mapping file says."""

    targets: Targets = field(default_factory=dict)
    match_rest: bool = True
    digest: str = ""


def load_mapping(path: str | Path) -> MappingFile:
    """Read a mapping. Raises ConfigError on one that is no mapping, or that nobody has reviewed."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the mapping {path}: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("map"), dict):
        raise ConfigError(f"The mapping {path} needs the key `map`: a mapping of head labels to labels of the run")
    if unknown := sorted(set(map(str, tree)) - set(_KEYS)):
        raise ConfigError(f"The mapping {path}: unknown key {unknown[0]!r}; allowed: {', '.join(_KEYS)}")
    if tree.get("reviewed", True) is not True:
        raise ConfigError(
            f"The mapping {path} is a proposal that nobody has reviewed: check it line by line, then set reviewed: true"
        )
    rest = tree.get("rest", "match")
    if rest not in ("match", UNMAPPED):
        raise ConfigError(f"The mapping {path}: rest is {rest!r}; allowed: match, {UNMAPPED}")
    targets = {str(name): _shares(name, value, path=path) for name, value in tree["map"].items()}
    digest = hashlib.sha256(repr((sorted((k, sorted(v.items())) for k, v in targets.items()), rest)).encode())
    return MappingFile(targets=targets, match_rest=rest == "match", digest=digest.hexdigest())


def write_proposal(path: str | Path, *, head_labels: Sequence[str], proposals: Sequence[tuple[str, float]]) -> None:
    """Write a mapping for review: for each head label the nearest label of the run and its similarity."""
    width = max(len(_quoted(name)) for name in head_labels)
    lines = [
        f"  {_quoted(name) + ':':<{width + 1}} {_quoted(label)}  # similarity {similarity:.2f}"
        for name, (label, similarity) in zip(head_labels, proposals, strict=True)
    ]
    text = _HEADER + "reviewed: false\nrest: unmapped\nmap:\n" + "\n".join(lines) + "\n"
    Path(path).write_text(text, encoding="utf-8")


def nearest_labels(
    head: NDArray[np.floating], run: NDArray[np.floating], *, run_labels: Sequence[str], unmapped_below: float
) -> list[tuple[str, float]]:
    """For each text embedding in `head` [H, D] the label of `run` [K, D] with the highest cosine, and that cosine.

    Below `unmapped_below` the proposal is `unmapped`.
    """
    similarity = _unit(head) @ _unit(run).T
    best = similarity.argmax(axis=1)
    cosines = similarity[np.arange(len(best)), best]
    return [
        (run_labels[label] if cosine >= unmapped_below else UNMAPPED, float(cosine))
        for label, cosine in zip(best, cosines, strict=True)
    ]


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _quoted(name: str) -> str:
    return yaml.safe_dump(name, default_style='"', width=10_000, allow_unicode=True).strip()


def _shares(name: object, value: object, *, path: str | Path) -> Mapping[str, float]:
    if value == UNMAPPED or value is None:
        return {}
    if isinstance(value, str):
        return {value: 1.0}
    if isinstance(value, dict) and value:
        for label, share in value.items():
            if isinstance(share, bool) or not isinstance(share, int | float):
                raise ConfigError(f"The mapping {path}: the share of {label!r} in {name!r} is {share!r}, not a number")
        return {str(label): float(share) for label, share in value.items()}
    raise ConfigError(
        f"The mapping {path}: {name!r} maps to {value!r}; write a label, {{label: share, ...}}, or {UNMAPPED}"
    )
