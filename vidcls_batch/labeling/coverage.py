"""Who can predict what: the labels of a run against the members that know them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidcls_batch.errors import ConfigError
from vidcls_batch.labeling.mapping import LabelMap

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Coverage:
    """Members by label of the run."""

    labels: tuple[str, ...]
    maps: Mapping[str, LabelMap]

    def members_of(self, label: str) -> tuple[str, ...]:
        """The members that can predict a label."""
        label_id = self.labels.index(label)
        return tuple(name for name, label_map in self.maps.items() if label_map.covers[label_id])

    @property
    def unpredictable(self) -> tuple[str, ...]:
        """Labels that no member can give."""
        known = [label_map.covers for label_map in self.maps.values()]
        return tuple(label for i, label in enumerate(self.labels) if not any(covers[i] for covers in known))

    def lines(self) -> list[str]:
        """What a person should know before the run: one line per member that is not one-to-one, then warnings."""
        lines = []
        for name, label_map in self.maps.items():
            covered = int(label_map.covers.sum())
            if (covered, label_map.mapped_outputs) != (len(self.labels), label_map.num_outputs):
                lacking = [label for label, known in zip(self.labels, label_map.covers, strict=True) if not known]
                outputs = f"{label_map.mapped_outputs} of its {label_map.num_outputs} outputs"
                lines.append(
                    f"Member {name} can predict {covered} of {len(self.labels)} labels, with {outputs}"
                    + (f"; not {_some(lacking)}" if lacking else "")
                )
        if self.unpredictable:
            lines.append(f"Warning: no member can predict {_some(self.unpredictable)}: no clip will get these labels")
        return lines


def check_coverage(labels: Sequence[str], maps: Mapping[str, LabelMap]) -> Coverage:
    """The coverage of a run. Raises ConfigError when no label can be predicted."""
    coverage = Coverage(tuple(labels), dict(maps))
    if len(coverage.unpredictable) == len(labels):
        raise ConfigError(f"No member can predict any label of the label set ({_some(labels)}); give them a `mapping`")
    return coverage


def _some(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:_SHOWN])
    return shown + (f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else "")
