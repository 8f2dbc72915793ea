"""Label sets: the names a run may give a clip, in id order, with a digest that says they are the same names."""

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from vidcls_batch.config import LabelSetConfig
from vidcls_batch.errors import ConfigError

_LABEL_KEYS = ("id", "name", "aliases", "description", "parent")


@dataclass(frozen=True, slots=True)
class Label:
    """One label: `aliases` are other names for the same thing, `parent` the name of a group or of another label."""

    name: str
    aliases: tuple[str, ...] = ()
    description: str = ""
    parent: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The name, then the aliases."""
        return (self.name, *self.aliases)


@dataclass(frozen=True)
class LabelSet:
    """Labels in id order: `labels[label_id]`. `groups` are nodes of the tree that no clip is labeled with."""

    name: str
    entries: tuple[Label, ...]
    groups: tuple[Label, ...] = ()

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The names in id order."""
        return tuple(entry.name for entry in self.entries)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names in order, and of all else that is said of them; equal digests mean equal label ids."""
        has_more = self.groups or any(entry != Label(entry.name) for entry in self.entries)
        content: object = [asdict(e) for e in (*self.entries, *self.groups)] if has_more else list(self.labels)
        return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()

    def ancestors(self, label: str) -> tuple[str, ...]:
        """The groups and labels above a label, nearest first. Raises KeyError for a name that is not here."""
        nodes = {node.name: node for node in (*self.entries, *self.groups)}
        found: list[str] = []
        node = nodes[label]
        while node.parent is not None:
            found.append(node.parent)
            node = nodes[node.parent]
        return tuple(found)


def plain_label_set(name: str, labels: Iterable[object]) -> LabelSet:
    """A label set of names alone. Raises ConfigError on empty or double names."""
    return _checked(name, [{"name": label} for label in labels])


def load_label_set(config: LabelSetConfig) -> LabelSet:
    """The label set a config names. Raises ConfigError on an unknown name or file, empty or double labels."""
    if config.labels is not None:
        return plain_label_set("inline", config.labels)
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
    return plain_label_set(path.stem, (line.strip() for line in text.splitlines() if line.strip()))


def _parse_yaml(text: str, *, source: str) -> LabelSet:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"Label set {source} is not valid YAML: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("labels"), list):
        raise ConfigError(f"Label set {source} needs the keys `name` and `labels` (a list in id order)")
    unknown = sorted(set(map(str, tree)) - {"name", "labels", "groups", "source", "description"})
    if unknown:
        raise ConfigError(f"Label set {source}: unknown key {unknown[0]!r}; allowed: name, labels, groups")
    name = str(tree.get("name", source))
    return _checked(
        name,
        [entry if isinstance(entry, dict) else {"name": entry} for entry in tree["labels"]],
        groups=[entry if isinstance(entry, dict) else {"name": entry} for entry in tree.get("groups") or []],
    )


def _checked(
    name: str, entries: Sequence[Mapping[str, object]], *, groups: Sequence[Mapping[str, object]] = ()
) -> LabelSet:
    if not entries:
        raise ConfigError(f"Label set {name} has no labels")
    labels = [_label(entry, source=name) for entry in _in_id_order(entries, source=name)]
    found = LabelSet(name=name, entries=tuple(labels), groups=tuple(_label(g, source=name) for g in groups))
    _refuse_double_names(found)
    _refuse_broken_tree(found)
    return found


def _in_id_order(entries: Sequence[Mapping[str, object]], *, source: str) -> list[Mapping[str, object]]:
    ids = [entry["id"] for entry in entries if "id" in entry]
    if not ids:
        return list(entries)
    if sorted(map(str, ids)) != sorted(map(str, range(len(entries)))):
        raise ConfigError(
            f"Label set {source}: ids must be 0 to {len(entries) - 1}, each once, or be left out of all labels; "
            f"got {ids[:10]}"
        )
    return sorted(entries, key=lambda entry: int(str(entry["id"])))


def _label(entry: Mapping[str, object], *, source: str) -> Label:
    unknown = sorted(set(map(str, entry)) - set(_LABEL_KEYS))
    if unknown:
        raise ConfigError(f"Label set {source}: unknown key {unknown[0]!r} in {dict(entry)}; allowed: {_LABEL_KEYS}")
    aliases = entry.get("aliases") or ()
    if not isinstance(aliases, list | tuple):
        raise ConfigError(f"Label set {source}: aliases of {entry.get('name')!r} must be a list, got {aliases!r}")
    parent, description = entry.get("parent"), entry.get("description") or ""
    return Label(
        name=_name(entry.get("name"), source=source),
        aliases=tuple(_name(alias, source=source) for alias in aliases),
        description=str(description),
        parent=None if parent is None else _name(parent, source=source),
    )


def _name(value: object, *, source: str) -> str:
    # YAML reads a bare `no` as False and `1` as a number: neither is a name anyone meant.
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"Label set {source}: {value!r} is not a name; write labels as quoted, non-empty text")
    return value


def _refuse_double_names(found: LabelSet) -> None:
    names = Counter(name for entry in found.entries for name in entry.names)
    names.update(group.name for group in found.groups)
    double = [name for name, count in names.items() if count > 1]
    if double:
        raise ConfigError(
            f"Label set {found.name} holds {double[0]!r} more than once; each label id needs its own name, and an "
            "alias belongs to one label"
        )


def _refuse_broken_tree(found: LabelSet) -> None:
    nodes = {node.name: node for node in (*found.entries, *found.groups)}
    for node in nodes.values():
        seen = {node.name}
        above = node.parent
        while above is not None:
            if above not in nodes:
                raise ConfigError(
                    f"Label set {found.name}: {above!r}, the parent of {node.name!r}, is no label; add it under "
                    "`groups:` where clips are never labeled with it"
                )
            if above in seen:
                raise ConfigError(f"Label set {found.name}: {node.name!r} is its own ancestor by way of {above!r}")
            seen.add(above)
            above = nodes[above].parent
