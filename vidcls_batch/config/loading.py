"""From a YAML file and overrides to a validated config, with errors that say what to write instead."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from vidcls_batch.config.section import suggestion
from vidcls_batch.config.whole import Config
from vidcls_batch.errors import ConfigError


def load_config(path: str | Path, *, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML config, apply `a.b.0.c=value` overrides, validate. Relative checkpoint, manifest and label-set paths
    are taken from the working directory. Raises ConfigError.
    """
    text = _read_text(path)
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} holds {type(tree).__name__}, not the mapping a config is; start from configs/demo.yaml"
        )
    return parse_config(with_overrides(tree, overrides), source=str(path))


def parse_config(tree: Mapping[str, Any], *, source: str = "config") -> Config:
    """Validate a config that is already a mapping. Raises ConfigError that names each wrong key."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        # pydantic also says of a list whose only item is wrong that it is too short.
        wrong_inside = {e["loc"][:1] for e in error.errors() if len(e["loc"]) > 1}
        told = [e for e in error.errors() if e["type"] != "too_short" or e["loc"] not in wrong_inside]
        lines = [_explain(dict(e), Config) for e in told]
        raise ConfigError(f"{source} is not a valid config:\n" + "\n".join(f"  - {line}" for line in lines)) from error


def resolved(config: Config) -> dict[str, Any]:
    """The config with every default filled in, as plain JSON values."""
    tree: dict[str, Any] = json.loads(config.model_dump_json())
    return tree


def with_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A new tree with each `a.b.0.c=value` set; values are YAML. Raises ConfigError."""
    for override in overrides:
        tree = _with_override(tree, override)
    return tree


def config_json_schema() -> dict[str, Any]:
    """JSON Schema of the config file, for editors; accepts the short string forms too."""
    schema = Config.model_json_schema(mode="validation")
    for key in ("run", "manifest"):
        schema["properties"][key] = {"anyOf": [{"type": "string"}, schema["properties"][key]]}
    label_set = schema["$defs"]["LabelSetConfig"]
    schema["$defs"]["LabelSetConfig"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, label_set]
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "vidcls-batch config"
    return schema


def _read_text(path: str | Path) -> str:
    try:
        return Path(os.fspath(path)).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"No config file at {path}. Ready ones are in configs/.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the config {path}: {error}") from error


def _with_override(tree: Any, override: str) -> Any:
    key, sep, raw = override.partition("=")
    if not sep or not key:
        raise ConfigError(f"--set {override!r}: write it as key.path=value, e.g. --set members.0.precision=bf16")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from error
    return _replaced(tree, key.split("."), value, override)


def _replaced(node: Any, parts: Sequence[str], value: Any, override: str) -> Any:
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            raise ConfigError(f"--set {override!r}: {head!r} is no index of a list of {len(node)} (0..{len(node) - 1})")
        return [_replaced(v, rest, value, override) if i == int(head) else v for i, v in enumerate(node)]
    if isinstance(node, str) and head != "path":
        node = {"path": node}  # the short form of run and manifest
    if not isinstance(node, dict):
        node = {}
    return {**node, head: _replaced(node.get(head), rest, value, override)}


def _explain(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    location = error["loc"]
    where = ".".join(str(p) for p in location)
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        hint = suggestion(str(location[-1]), known)
        return f"{where}: unknown key{hint or '.'} Allowed here: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{where}: is required"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"].startswith("value_error"):
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (got {error['input']!r})"


def _keys_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    for part in location:
        if isinstance(part, int):
            continue
        found = _section_of(model.model_fields[part].annotation) if part in model.model_fields else None
        if found is None:
            return []
        model = found
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple, Annotated):
        for inner in get_args(annotation):
            if (found := _section_of(inner)) is not None:
                return found
    return None
