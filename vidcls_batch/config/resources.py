"""What the stages may use of the machines."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from vidcls_batch.config.section import Section, suggestion

HostMemory = Literal["huge_pages", "kept", "plain"]


class GroupConfig(Section):
    """Members that one classifier holds beside those of other groups, where no device holds all."""

    members: tuple[str, ...] = Field(min_length=1, description="Names of members.")
    actors: int | None = Field(None, ge=1, description="Most classifiers of this group; default: an equal share.")


def _names_to_group(value: object) -> object:
    return {"members": value} if isinstance(value, list | tuple) else value


_Group = Annotated[GroupConfig, BeforeValidator(_names_to_group, json_schema_input_type=GroupConfig | tuple[str, ...])]


class ResourcesConfig(Section):
    """What the stages may use. None means chosen from the machine, see docs/resources.md."""

    batch_size: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Clips in a block: decoded by one task, classified as one batch; default: about 64 MB of frames.",
    )
    decode_cpus: float = Field(1.0, gt=0, description="CPUs a decode task reserves.")
    decode_tasks: int | None = Field(None, ge=1, description="Most decode tasks at once.")
    decode_memory_mb: int | None = Field(None, ge=64, description="Memory a decode task reserves.")
    classify_actors: int | None = Field(None, ge=1, description="Most classifier actors at once.")
    classify_cpus: float | None = Field(None, ge=0, description="CPUs a classifier actor reserves.")
    classify_gpus: float | None = Field(
        None, ge=0, description="GPUs a classifier actor reserves; fractions share one."
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    groups: Literal["auto"] | tuple[_Group, ...] | None = Field(
        None,
        description="Members that share a classifier: [[a, b], [c]] or [{members: [a, b], actors: 2}, ...]; auto: the "
        "fewest that fit a device, measured when the run starts; default: one classifier holds all.",
    )
    device_memory_mb: int | None = Field(
        None,
        ge=1,
        description="Memory of one GPU, for `vidcls plan` and `groups: auto`; default: that of the machine's GPU.",
    )
    accelerator_type: str | None = Field(
        None, description="Ray's name of the GPUs for classifiers, e.g. A10G or H100; default: any."
    )
    decode_labels: dict[str, str] = Field(
        default_factory=dict, description="Ray node labels that decode tasks need, e.g. {pool: cpu}."
    )
    classify_labels: dict[str, str] = Field(
        default_factory=dict, description="Ray node labels that classifiers need, e.g. {pool: spot-gpu}."
    )
    host_memory: HostMemory = Field(
        "huge_pages",
        description="How classifiers on CPUs get memory; kept: freed memory stays with them, which is faster for 3D "
        "networks and takes two to three times the memory; plain: as it comes.",
    )
    object_store_mb: int | None = Field(None, ge=128, description="Size of a local cluster's object store.")
    num_cpus: int | None = Field(None, ge=1, description="CPUs of a local cluster; default: all.")


def check_groups(groups: Sequence[Sequence[str]], *, names: Sequence[str], cascade_first: Sequence[str]) -> None:
    """Raise ValueError unless each member is in exactly one group, and those a cascade asks first are in the first."""
    listed = [name for group in groups for name in group]
    for name in listed:
        if name not in names:
            raise ValueError(
                f"resources.groups: {name!r} is no member{suggestion(name, names)}; members: {list(names)}"
            )
        if listed.count(name) > 1:
            raise ValueError(f"resources.groups: member {name!r} is listed twice; one classifier scores it")
    if left_out := [name for name in names if name not in listed]:
        raise ValueError(f"resources.groups leaves out {', '.join(left_out)}: each member must be in a group")
    if later := [name for name in cascade_first if name not in groups[0]]:
        raise ValueError(
            f"ensemble.cascade asks {', '.join(later)} first, so resources.groups must have them in its first group"
        )
