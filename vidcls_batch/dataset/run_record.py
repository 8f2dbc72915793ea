"""What makes a run this run: the settings that decide its result, and the record of how it was made."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vidcls_batch.config import Config, resolved
from vidcls_batch.errors import RunMismatchError, StorageError
from vidcls_batch.storage import Store, absolute_uri

RUN_RECORD = "run.json"
HEADS = "heads.json"
_SHOWN_CHARS = 120

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

# Config section or key -> whether it decides what the prediction rows hold. The longest match counts, and each key of
# the config has one (a test sees to it). What does not decide the result may change when a run is resumed.
DECIDES_RESULT: dict[str, bool] = {
    "run": False,  # where the run lies and how its store is reached
    "manifest": True,  # together with the manifest's digest
    "manifest.allow": False,  # a limit decides whether a clip gets a label, not which
    "label_set": True,
    "decode": True,
    "decode.timeout_s": False,  # depends on the machine anyway: a slow one needs more
    "decode.memory_mb": False,
    "decode.max_bytes": False,  # a limit decides whether a clip gets a label, not which: `retry` may raise it
    "decode.max_pixels": False,
    "decode.max_duration_s": False,
    "decode.max_packets": False,
    "decode.fetch_timeout_s": False,  # depends on the network
    "decode.fetch_retries": False,
    "decode.range_above_mb": False,  # the same frames, fewer bytes
    "members": True,
    "ensemble": True,
    "resources": False,  # a run may go on with more machines, other batches, or a GPU
    "output": True,
    "output.compression": False,  # readers cannot tell
}


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """All that decides the result, as flat `key -> value`: config keys and facts the config only points to."""

    values: Mapping[str, Json] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """32 hex digits; equal identities have equal ones."""
        return hashlib.sha256(_canonical(dict(self.values)).encode()).hexdigest()[:32]


def run_identity(config: Config, *, facts: Mapping[str, Json] | None = None) -> RunIdentity:
    """The identity of a run. `facts` are what the config points to: digests of label set, prompts and weights, …"""
    flat = flatten(resolved(config))
    values = {key: value for key, value in flat.items() if decides_result(key)}
    values["manifest.path"] = absolute_uri(config.manifest.path)
    return RunIdentity({**values, **flatten(dict(facts or {}))})


def decides_result(key: str) -> bool:
    """Whether a dotted config key belongs to the run's identity. Raises KeyError for one without a rule."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if (rule := DECIDES_RESULT.get(".".join(parts[:length]))) is not None:
            return rule
    raise KeyError(f"no rule in DECIDES_RESULT for the config key {key}")


def differences(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    """One line for each key that is not the same: `key: old → new`."""
    lines = []
    for key in sorted(set(old) | set(new)):
        if key not in old or key not in new or _canonical(old[key]) != _canonical(new[key]):
            before = _shown(old[key]) if key in old else "(not set)"
            after = _shown(new[key]) if key in new else "(not set)"
            lines.append(f"{key}: {before} → {after}")
    return lines


def refuse_differences(old: Mapping[str, Json], new: Mapping[str, Json], *, uri: str) -> None:
    """Raise RunMismatchError when a run folder was made with another identity; shows key by key."""
    lines = differences(old, new)
    if lines:
        raise RunMismatchError(
            f"The run folder {uri} was made with other settings:\n"
            + "\n".join(f"  - {line}" for line in lines)
            + "\nSet them back to resume it, or give the new run a folder of its own (run.path)."
        )


def flatten(tree: Mapping[str, Any], *, prefix: str = "") -> dict[str, Json]:
    """Nested mappings, and lists that hold mappings, as dotted keys; lists of plain values stay whole.

    >>> flatten({"a": {"b": 1}, "c": [{"d": 2}], "e": [1, 2]})
    {'a.b': 1, 'c.0.d': 2, 'e': [1, 2]}
    """
    flat: dict[str, Json] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix=f"{path}.")
        elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
            flat |= flatten({str(i): v for i, v in enumerate(value)}, prefix=f"{path}.")
        else:
            flat[path] = list(value) if isinstance(value, tuple) else value
    return flat


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How a run was made, for people and for `retry`."""

    config: Mapping[str, Any]  # resolved
    provenance: Mapping[str, Any] = field(default_factory=dict)  # versions, weights, label set, licences, seeds


def write_run_record(store: Store, record: RunRecord) -> None:
    """Write or replace run.json. Raises ValueError when it would hold a credential."""
    tree = {"config": record.config, "provenance": record.provenance}
    _refuse_secrets(tree)
    store.put(RUN_RECORD, (json.dumps(tree, indent=2, ensure_ascii=False) + "\n").encode())


def read_run_record(store: Store) -> RunRecord:
    """The record of a run. Raises StorageError where there is none or it is damaged."""
    try:
        return RunRecord(**json.loads(store.read_bytes(RUN_RECORD)))
    except FileNotFoundError as error:
        raise StorageError(f"{store.uri} holds no {RUN_RECORD}. Is it a run folder? Start one: vidcls run") from error
    except (ValueError, TypeError) as error:
        raise StorageError(f"{store.uri}/{RUN_RECORD} is damaged ({error}). The run itself writes it anew.") from error


def write_heads(store: Store, heads: Mapping[str, Sequence[str]]) -> None:
    """Keep the names of each member's outputs, in order, for those who read its logits later.

    Apart from run.json, whose content is repeated in each file's footer.
    """
    tree = {member: list(labels) for member, labels in heads.items()}
    store.put(HEADS, (json.dumps(tree, ensure_ascii=False) + "\n").encode())


def read_heads(store: Store) -> dict[str, tuple[str, ...]]:
    """The outputs' names by member. Raises StorageError where they are not kept."""
    try:
        return {member: tuple(labels) for member, labels in json.loads(store.read_bytes(HEADS)).items()}
    except FileNotFoundError as error:
        raise StorageError(
            f"{store.uri} has no {HEADS}, so its logits cannot be told apart: it was made by an earlier version. "
            "Run it again."
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise StorageError(f"{store.uri}/{HEADS} is damaged ({error}).") from error


def _refuse_secrets(record: Mapping[str, Any]) -> None:
    for key, value in flatten(record).items():
        name = key.rpartition(".")[2]
        if re.search(r"(^|_)(secret|password|token|credential|access_key)s?($|_)", name, re.IGNORECASE):
            raise ValueError(f"{key} looks like a credential; run.json is for everybody to read")
        if isinstance(value, str) and re.match(r"^[a-z0-9+.-]+://[^/@\s]+:[^/@\s]+@", value, re.IGNORECASE):
            raise ValueError(f"{key} is a URI with a password in it; run.json is for everybody to read")


def _canonical(value: Json) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _shown(value: Json) -> str:
    text = _canonical(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters)"
