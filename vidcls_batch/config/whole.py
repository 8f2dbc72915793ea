"""A whole run, and what must hold between its sections."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from vidcls_batch.config.ensemble import EnsembleConfig
from vidcls_batch.config.inputs import DecodeConfig, LabelSetConfig, ManifestConfig, OutputConfig, RunConfig
from vidcls_batch.config.members import MemberConfig
from vidcls_batch.config.resources import ResourcesConfig, check_groups
from vidcls_batch.config.section import Section, suggestion


def _path_to_section(key: str) -> Any:
    def convert(value: object) -> object:
        return {key: value} if isinstance(value, str) else value

    return BeforeValidator(convert)


class Config(Section):
    """A whole run."""

    run: Annotated[RunConfig, _path_to_section("path")]
    manifest: Annotated[ManifestConfig, _path_to_section("path")]
    label_set: LabelSetConfig
    decode: DecodeConfig = DecodeConfig()
    members: tuple[MemberConfig, ...] = Field(min_length=1)
    ensemble: EnsembleConfig = EnsembleConfig()
    resources: ResourcesConfig = ResourcesConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _names_agree(self) -> "Config":
        names = [m.name for m in self.members]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"members: the name {name!r} is used twice; names prefix columns and must differ")
        for key in ("weights", "label_weights"):
            for name in getattr(self.ensemble, key):
                if name not in names:
                    hint = suggestion(name, names)
                    raise ValueError(f"ensemble.{key}: {name!r} is no member{hint}; members: {names}")
        _check_cascade(self.ensemble, names)
        if isinstance(self.resources.groups, tuple):
            groups = [group.members for group in self.resources.groups]
            check_groups(groups, names=names, cascade_first=self.ensemble.asked_first)
        if self.ensemble.weights and sum(self.ensemble.weights.get(n, 1.0) for n in names) == 0:
            raise ValueError("ensemble.weights: the members' weights sum to 0")
        return self


def _check_cascade(ensemble: EnsembleConfig, names: Sequence[str]) -> None:
    cascade = ensemble.cascade
    if cascade is None:
        return
    for name in cascade.first:
        if name not in names:
            raise ValueError(f"ensemble.cascade.first: {name!r} is no member{suggestion(name, names)}")
    if set(cascade.first) == set(names):
        raise ValueError("ensemble.cascade.first names all members, so none is left for the clips they are not sure of")
    if all(ensemble.weights.get(name, 1.0) == 0 for name in cascade.first):
        raise ValueError("ensemble.cascade.first: the weights of these members are 0; they could not decide anything")
    if ensemble.missing != "skip":
        raise ValueError(
            f"ensemble.cascade leaves members out, so ensemble.missing must be skip, not {ensemble.missing}"
        )
