"""How a run's members become its labels, settled before anything starts: maps, weights, calibration, coverage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from vidcls_batch.config import Config, MemberConfig, TableRule
from vidcls_batch.errors import ConfigError
from vidcls_batch.label_sets import LabelSet
from vidcls_batch.labeling.calibration import Calibration
from vidcls_batch.labeling.calibration_file import load_calibration
from vidcls_batch.labeling.cascade import Cascade
from vidcls_batch.labeling.coverage import Coverage, check_coverage
from vidcls_batch.labeling.labeler import LabelingSettings
from vidcls_batch.labeling.mapping import LabelMap, map_labels
from vidcls_batch.labeling.mapping_file import MappingFile, load_mapping
from vidcls_batch.models.base import MemberDescription

TABLE_RULES: tuple[str, ...] = get_args(TableRule)


@dataclass(frozen=True, slots=True)
class LabelingSetup:
    """Settings for the workers, who can predict what, and digests of all files behind them."""

    settings: LabelingSettings
    coverage: Coverage
    facts: Mapping[str, Any]
    cascade: Cascade | None
    embeds: frozenset[str]  # members whose calibration looks at their embedding


def set_up_labeling(
    config: Config, *, label_set: LabelSet, members: Sequence[MemberDescription], whole_table: bool = False
) -> LabelingSetup:
    """Settle how labels come about. Raises ConfigError naming the entry at fault; reads small files only.

    `whole_table`: the caller has all rows at hand, as rules such as dawid_skene need.
    """
    ensemble = config.ensemble
    if ensemble.rule in TABLE_RULES and not whole_table:
        raise ConfigError(
            f"ensemble.rule {ensemble.rule} looks at the whole table, which a run never holds: label with another "
            "rule and output.member_logits, then `vidcls relabel` with this one"
        )
    if ensemble.none_label in label_set.labels:
        raise ConfigError(f"ensemble.none_label {ensemble.none_label!r} is a label of the label set; choose another")
    mappings = {m.name: load_mapping(m.mapping) for m in config.members if m.mapping is not None}
    has_negatives = any(m.negative_prompts for m in config.members)
    maps = {
        m.name: _map(m, described, label_set=label_set, mapping=mappings.get(m.name))
        for m, described in zip(config.members, members, strict=True)
    }
    coverage = check_coverage(label_set.labels, maps)
    if has_negatives:
        maps = {m.name: _with_negatives(maps[m.name], m) for m in config.members}
    calibration, digest, embeds = _calibration(config, label_set=label_set)
    settings = LabelingSettings(
        labels=label_set.labels,
        maps=tuple(maps[m.name] for m in config.members),
        weights=tuple(ensemble.weights.get(m.name, 1.0) for m in config.members),
        label_weights=_label_weights(config, label_set),
        top_k=ensemble.top_k,
        rule="weighted_mean" if ensemble.rule in TABLE_RULES else ensemble.rule,
        missing=ensemble.missing,
        none_label=ensemble.none_label,
        none_below=ensemble.none_below,
        has_negatives=has_negatives,
        calibration=calibration,
    )
    facts: dict[str, Any] = {f"mapping.{name}": mapping.digest for name, mapping in mappings.items()}
    if digest is not None:
        facts["calibration"] = digest
    return LabelingSetup(settings, coverage, facts, _cascade(config), embeds)


def _cascade(config: Config) -> Cascade | None:
    asked = config.ensemble.cascade
    if asked is None:
        return None
    names = [m.name for m in config.members]
    first = tuple(names.index(name) for name in asked.first)
    return Cascade(first=first, margin=asked.margin, audit_share=asked.audit_share)


def _map(
    member: MemberConfig, described: MemberDescription, *, label_set: LabelSet, mapping: MappingFile | None
) -> LabelMap:
    head_labels, zero_shot = described.labels, described.zero_shot
    if mapping is None:
        # Negative prompts stand behind the labels and are mapped by `_with_negatives`.
        outputs = head_labels[: len(label_set.labels)] if zero_shot else head_labels
        found = map_labels(outputs, label_set=label_set, member=member.name)
        return LabelMap(len(head_labels), found.num_labels, found.head_ids, found.run_ids, found.shares)
    if zero_shot:
        raise ConfigError(f"members.{member.name}.mapping: a zero-shot member scores the run's labels; leave it out")
    return map_labels(
        head_labels, label_set=label_set, member=member.name, targets=mapping.targets, rest=mapping.match_rest
    )


def _with_negatives(label_map: LabelMap, member: MemberConfig) -> LabelMap:
    """The map with a place for "none of these" behind the labels, where the member's negative prompts go."""
    import numpy as np

    count = len(member.negative_prompts)
    negatives = np.arange(label_map.num_outputs - count, label_map.num_outputs)
    return LabelMap(
        num_outputs=label_map.num_outputs,
        num_labels=label_map.num_labels + 1,
        head_ids=np.concatenate([label_map.head_ids, negatives]),
        run_ids=np.concatenate([label_map.run_ids, np.full(count, label_map.num_labels)]),
        shares=np.concatenate([label_map.shares, np.ones(count)]),
    )


def _label_weights(config: Config, label_set: LabelSet) -> tuple[tuple[float, ...], ...] | None:
    given = config.ensemble.label_weights
    for name, weights in given.items():
        for label in weights:
            if label not in label_set.labels:
                raise ConfigError(f"ensemble.label_weights.{name}: {label!r} is no label of {label_set.name}")
    if not given:
        return None
    found = tuple(
        tuple(given.get(member.name, {}).get(label, 1.0) for label in label_set.labels) for member in config.members
    )
    for label, of_label in zip(label_set.labels, zip(*found, strict=True), strict=True):
        if not any(of_label):
            raise ConfigError(
                f"ensemble.label_weights: the weights of all members for {label!r} are 0, so no clip could get it; "
                "give one of them a weight, or leave the label out of the label set"
            )
    return found


def _calibration(config: Config, *, label_set: LabelSet) -> tuple[Calibration | None, str | None, frozenset[str]]:
    path = config.ensemble.calibration
    if path is None:
        return None, None, frozenset()
    file = load_calibration(path)
    names = [m.name for m in config.members]
    found = file.for_members(names, label_set_digest=label_set.digest, source=path, rule=config.ensemble.rule)
    return found, file.digest, file.embeds & set(names)
