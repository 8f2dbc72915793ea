"""Label sets: the names a run may give a clip, in id order, with a digest that says they are the same names."""

import difflib
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from vidcls_batch.config import LabelSetConfig
from vidcls_batch.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Names in id order: `labels[label_id]`."""

    name: str
    labels: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the names in order; equal digests mean equal label ids."""
        return hashlib.sha256(json.dumps(list(self.labels), ensure_ascii=False).encode()).hexdigest()


def load_label_set(config: LabelSetConfig) -> LabelSet:
    """The label set a config names. Raises ConfigError on an unknown name or file, empty or double labels."""
    if config.labels is not None:
        return _checked("inline", config.labels)
    if config.file is not None:
        return _read_file(Path(config.file))
    assert config.name is not None  # LabelSetConfig guarantees one source
    files = _built_in_files()
    if config.name not in files:
        near = difflib.get_close_matches(config.name, files, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"Unknown label set {config.name!r}.{hint} Built in: {', '.join(sorted(files))}")
    return _parse_yaml(files[config.name].read_text(encoding="utf-8"), source=config.name)


def built_in_label_sets() -> list[str]:
    """Names that `label_set:` accepts without a file."""
    return sorted(_built_in_files())


def _built_in_files() -> dict[str, Traversable]:
    folder = resources.files("vidcls_batch") / "data" / "label_sets"
    return {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}


def _read_file(path: Path) -> LabelSet:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the label set {path}: {error}") from error
    if path.suffix in (".yaml", ".yml"):
        return _parse_yaml(text, source=str(path))
    return _checked(path.stem, tuple(line.strip() for line in text.splitlines() if line.strip()))


def _parse_yaml(text: str, *, source: str) -> LabelSet:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"Label set {source} is not valid YAML: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("labels"), list):
        raise ConfigError(f"Label set {source} needs the keys `name` and `labels` (a list in id order)")
    return _checked(str(tree.get("name", source)), tuple(tree["labels"]))


def _checked(name: str, labels: tuple[object, ...]) -> LabelSet:
    # YAML reads a bare `no` as False and `1` as a number: neither is a name anyone meant.
    odd = [label for label in labels if not isinstance(label, str) or not label.strip()]
    if odd:
        raise ConfigError(f"Label set {name}: {odd[0]!r} is not a name; write labels as quoted, non-empty text")
    names = tuple(str(label) for label in labels)
    if not names:
        raise ConfigError(f"Label set {name} has no labels")
    double = [label for label, count in Counter(names).items() if count > 1]
    if double:
        raise ConfigError(f"Label set {name} holds {double[0]!r} more than once; each label id needs its own name")
    return LabelSet(name=name, labels=names)
