"""A calibration as a JSON file with provenance: what `vidcls calibrate` writes, `run` and `relabel` apply."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from vidcls_batch.errors import ConfigError
from vidcls_batch.labeling.calibration import METHODS, Calibration, Calibrator, EmbeddingCache, LinearProbe, Temperature
from vidcls_batch.labeling.rules import Stacking

VERSION = 1


@dataclass(frozen=True)
class CalibrationFile:
    """Calibrators by member name, of the ensemble, and what they were learned from."""

    members: Mapping[str, Calibrator] = field(default_factory=dict)
    ensemble: Calibrator | None = None
    stacking: Stacking | None = None
    stacked_members: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    incomplete: Calibrator | None = None

    def for_members(self, names: Sequence[str], *, label_set_digest: str, source: str, rule: str) -> Calibration:
        """The calibration of a run with these members. Raises ConfigError where it was learned for other labels.

        A temperature fits any label set; all else has a number per label.
        """
        used = [(name, c) for name in names if (c := self.members.get(name)) is not None]
        if self.ensemble is not None:
            used.append(("ensemble", self.ensemble))
        if self.incomplete is not None:
            used.append(("incomplete clips", self.incomplete))
        of_labels = [name for name, c in used if not isinstance(c, Temperature)]
        learned_with = self.provenance.get("rule", rule)
        if self.ensemble is not None and learned_with != rule:
            raise ConfigError(
                f"{source} was learned with ensemble.rule {learned_with}, the run has {rule}; use that rule, or "
                "calibrate a run with this one"
            )
        if rule == "stacking":
            if self.stacking is None:
                raise ConfigError(f"{source} holds no stacking; learn it: vidcls calibrate RUN --truth FILE --stacking")
            if tuple(names) != self.stacked_members:
                raise ConfigError(
                    f"{source}: its stacking was learned for the members {list(self.stacked_members)}, the run has "
                    f"{list(names)}; learn it again with these"
                )
            of_labels.append("stacking")
        known = self.provenance.get("label_set_digest")
        if of_labels and known != label_set_digest:
            raise ConfigError(
                f"{source}: the calibration of {', '.join(of_labels)} was learned for another label set "
                f"(digest {str(known)[:12]}, the run's is {label_set_digest[:12]}); calibrate again, or with "
                "--method temperature"
            )
        return Calibration(
            members=tuple(self.members.get(name) for name in names),
            ensemble=self.ensemble,
            stacking=self.stacking if rule == "stacking" else None,
            incomplete=self.incomplete,
        )

    @property
    def embeds(self) -> frozenset[str]:
        """Members whose calibrator looks at their embedding."""
        return frozenset(n for n, c in self.members.items() if isinstance(c, LinearProbe | EmbeddingCache))


def save_calibration(path: str | Path, calibration: CalibrationFile) -> None:
    """Write the file."""
    tree = {
        "version": VERSION,
        "provenance": dict(calibration.provenance),
        "members": {name: _encoded(c) for name, c in calibration.members.items()},
        "ensemble": None if calibration.ensemble is None else _encoded(calibration.ensemble),
        "incomplete": None if calibration.incomplete is None else _encoded(calibration.incomplete),
        "stacking": None,
    }
    if calibration.stacking is not None:
        arrays = {name: _plain(value) for name, value in asdict(calibration.stacking).items()}
        tree["stacking"] = {"members": list(calibration.stacked_members), **arrays}
    Path(path).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def load_calibration(path: str | Path) -> CalibrationFile:
    """Read a file of `save_calibration`. Raises ConfigError on one that is not."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"Cannot read the calibration {path}: {error}. Make one: vidcls calibrate RUN --truth FILE --out {path}"
        ) from error
    try:
        tree = json.loads(data)
        if tree["version"] != VERSION:
            raise ConfigError(f"The calibration {path} is of version {tree['version']}, not {VERSION}; calibrate again")
        stacking = tree["stacking"]
        return CalibrationFile(
            members={name: _decoded(c) for name, c in tree["members"].items()},
            ensemble=None if tree["ensemble"] is None else _decoded(tree["ensemble"]),
            stacking=None
            if stacking is None
            else Stacking(exponents=_array(stacking["exponents"]), bias=_array(stacking["bias"])),
            stacked_members=() if stacking is None else tuple(stacking["members"]),
            provenance=tree["provenance"],
            digest=hashlib.sha256(data).hexdigest(),
            incomplete=None if tree.get("incomplete") is None else _decoded(tree["incomplete"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no calibration of vidcls ({type(error).__name__}: {error})") from error


def _encoded(calibrator: Calibrator) -> dict[str, Any]:
    method = next(name for name, kind in METHODS.items() if type(calibrator) is kind)
    values = {f.name: _plain(getattr(calibrator, f.name)) for f in fields(calibrator)}  # type: ignore[arg-type]
    return {"method": method, **values}


def _decoded(tree: Mapping[str, Any]) -> Calibrator:
    kind = METHODS[tree["method"]]
    return kind(**{name: _value(value) for name, value in tree.items() if name != "method"})


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        return {
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "base64": base64.b64encode(array.tobytes()).decode(),
        }
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_value(v) for v in value)
    return _array(value) if isinstance(value, dict) else value


def _array(tree: Mapping[str, Any]) -> Any:
    return np.frombuffer(base64.b64decode(tree["base64"]), tree["dtype"]).reshape(tree["shape"])
