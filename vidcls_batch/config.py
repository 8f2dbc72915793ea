"""What a run is told: one YAML file, read once, frozen, handed on as values."""

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from vidcls_batch.errors import ConfigError
from vidcls_batch.types import DecodeLimits, SamplingRule


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class RunConfig(_Section):
    """Where the run lives."""

    path: str = Field(
        description="Output folder: a local path or any fsspec URI, e.g. s3://bucket/runs/k400.", min_length=1
    )
    endpoint_url: str | None = Field(
        None, description="S3 endpoint for all s3:// URIs of the run; default: AWS_ENDPOINT_URL or Amazon."
    )
    ray_address: str | None = Field(
        None, description="Ray cluster to join; default: RAY_ADDRESS, else a private local cluster."
    )
    canary_clips: int = Field(
        8, ge=0, le=1000, description="Clips scored a second time at the end; a difference fails the run."
    )
    max_poison_clips: int = Field(
        100, ge=0, description="More clips than this that kill their worker mean the job is at fault, and it stops."
    )
    max_failed_share: float = Field(
        0.95,
        gt=0,
        le=1,
        description="A larger share of failed clips, of at least 1,000, means the job is at fault: it stops. 1: never.",
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Extra keyword arguments of the fsspec file system of the run's stores; never secrets.",
    )

    @field_validator("storage_options")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if re.search(r"secret|token|password|key", key, re.IGNORECASE):
                raise ValueError(
                    f"{key!r} looks like a credential, and run.json records the config: "
                    "pass credentials by environment or role"
                )
        return value


class ManifestColumns(_Section):
    """How the manifest names its columns."""

    uri: str = "uri"
    clip_id: str = Field(
        "clip_id", description="Optional column; without it ids are derived from uri, start_s and end_s."
    )
    start_s: str = Field("start_s", description="Optional column: where the clip starts in its file, seconds.")
    end_s: str = Field("end_s", description="Optional column: where the clip ends in its file, seconds.")


class ManifestConfig(_Section):
    """Which clips to label."""

    path: str = Field(
        description="A Parquet, CSV, JSONL or text file (or a folder of Parquet files), a folder of videos, or a glob "
        "such as s3://bucket/prefix/**/*.mp4.",
        min_length=1,
    )
    format: Literal["auto", "parquet", "csv", "jsonl", "text", "folder"] = "auto"
    columns: ManifestColumns = ManifestColumns()
    allow: tuple[str, ...] = Field(
        (),
        description="Where clips may lie: URI prefixes or folders; others become fetch_error. Default: anywhere for a "
        "run on this machine; on a cluster object stores and public web servers, no files and no private addresses.",
    )


class LabelSetConfig(_Section):
    """Labels: exactly one of the three. In short, a list is the labels, text is a file or a built-in name."""

    name: str | None = Field(None, description="A built-in label set, e.g. kinetics400.")
    file: str | None = Field(None, description="A label-set file: YAML, or text with one label a line.")
    labels: tuple[str, ...] | None = Field(None, description="The labels themselves, in id order.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            return {"labels": value}
        if isinstance(value, str):
            is_file = "/" in value or value.endswith((".yaml", ".yml", ".txt"))
            return {"file": value} if is_file else {"name": value}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> "LabelSetConfig":
        given = [k for k in ("name", "file", "labels") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of name, file, labels; got {given or 'none'}")
        return self


class DecodeConfig(_Section):
    """How videos become frames, and what a clip may cost."""

    backend: str = Field(
        "auto",
        description="auto, pyav, pyav-fast, pyav-sequential, decord, torchcodec, or your own as module:attribute.",
    )
    short_side: int | None = Field(
        None,
        ge=16,
        le=2160,
        description="Side of the square frames handed to the members; default: the largest a member wants.",
    )
    timeout_s: float = Field(DecodeLimits().timeout_s, gt=0)
    memory_mb: int = Field(DecodeLimits().memory_mb, ge=128)
    max_bytes: int = Field(DecodeLimits().max_bytes, gt=0)
    max_pixels: int = Field(DecodeLimits().max_pixels, gt=0)
    max_duration_s: float = Field(DecodeLimits().max_duration_s, gt=0)
    max_packets: int = Field(DecodeLimits().max_packets, gt=0)
    fetch_timeout_s: float = Field(60.0, gt=0, description="Longest wait for one object.")
    fetch_retries: int = Field(4, ge=0, description="Further tries after the first before a clip becomes fetch_error.")
    range_above_mb: int | None = Field(
        64,
        ge=1,
        description="Of larger MP4 and MOV files only what the frames need is fetched; null: every file whole.",
    )

    @property
    def limits(self) -> DecodeLimits:
        """The decoder's share of this section."""
        return DecodeLimits(
            timeout_s=self.timeout_s,
            memory_mb=self.memory_mb,
            max_bytes=self.max_bytes,
            max_pixels=self.max_pixels,
            max_duration_s=self.max_duration_s,
            max_packets=self.max_packets,
        )


class SamplingConfig(_Section):
    """Overrides of the checkpoint's own frame sampling; what is left out comes from the checkpoint's family."""

    num_frames: int | None = Field(None, ge=1, le=256)
    rule: SamplingRule | None = None
    stride: int | None = Field(None, ge=1)
    fps: float | None = Field(None, gt=0)
    views: int | None = Field(None, ge=1, le=64, description="Windows in time whose scores are averaged.")
    crops: Literal[1, 3] | None = Field(
        None, description="3: each view is seen at the start, centre and end of the picture's longer side."
    )


class MemberConfig(_Section):
    """One model of the ensemble."""

    name: str = Field(description="Identifier that prefixes the member's columns.", pattern=r"^[a-z][a-z0-9_]*$")
    family: str = Field(
        description="Model family, see `vidcls models`, or your own as package.module:attribute.",
    )
    checkpoint: str = Field(
        description="Hub id, local folder, or fsspec URI of a save_pretrained folder.", min_length=1
    )
    revision: str | None = Field(None, description="Hub revision; pin it for a reproducible run.")
    labels: LabelSetConfig | None = Field(
        None, description="Names of the head's outputs, where the checkpoint's own are not the run's."
    )
    mapping: str | None = Field(
        None, description="A file that maps the head's labels to the run's; without it equal names and aliases do."
    )
    prompts: tuple[str, ...] | str | None = Field(
        None,
        description="Zero-shot templates, each with {} for the label; or a shipped set (single, actions28), or a "
        "YAML file with a list of templates.",
    )
    negative_prompts: tuple[str, ...] = Field(
        (),
        description="Zero-shot texts of what is none of the labels ('a video of nothing in particular'): a clip "
        "nearer to them than to any label gets ensemble.none_label.",
    )
    sampling: SamplingConfig = SamplingConfig()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="What it computes in; auto: bf16 on CUDA, fp32 on the CPU."
    )
    layout: Literal["auto", "contiguous", "channels_last_3d"] = Field(
        "auto", description="Memory order of a 3D network's weights and features; auto: contiguous."
    )
    compile: Literal["auto", "off", "default", "reduce-overhead"] = Field(
        "auto", description="torch.compile; reduce-overhead adds CUDA graphs. Takes minutes per worker; auto: off."
    )

    @field_validator("prompts")
    @classmethod
    def _templates_have_a_slot(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        if isinstance(value, tuple):
            check_templates(value)
        return value

    @field_validator("negative_prompts")
    @classmethod
    def _negatives_are_texts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not text.strip() or "{}" in text:
                raise ValueError(f"{text!r}: a negative prompt is a whole text, not empty and without {{}}")
        return value


def check_templates(templates: Sequence[str]) -> None:
    """Raise ValueError for prompt templates that are none."""
    if not templates:
        raise ValueError("give at least one template, or leave prompts out")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"{template!r} needs exactly one {{}} where the label goes, e.g. 'a video of {{}}'")


# Rules that look at one clip at a time, and those that need the whole table: `relabel` has both.
ClipRule = Literal["weighted_mean", "log_pool", "logit_mean", "majority", "weighted_vote", "rank_fusion", "stacking"]
TableRule = Literal["dawid_skene", "one_coin_dawid_skene", "mace", "glad"]


class CascadeConfig(_Section):
    """Ask some members about every clip, the others only about those that the first are not sure of."""

    first: tuple[str, ...] = Field(min_length=1, description="The members that score every clip: cheap ones.")
    margin: float = Field(ge=0, le=1, description="A clip whose margin by the first members is lower goes on to all.")
    audit_share: float = Field(
        0.02, ge=0, le=1, description="Of the other clips, the share that goes on too, to see what the cascade costs."
    )


class EnsembleConfig(_Section):
    """How the members' scores become one label."""

    rule: ClipRule | TableRule = Field(
        "weighted_mean",
        description="See docs/ensembles.md; dawid_skene, one_coin_dawid_skene, mace and glad look at the whole table: "
        "for `vidcls relabel` only.",
    )
    weights: dict[str, float] = Field(default_factory=dict, description="Weight per member name; default 1 each.")
    label_weights: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="Per member and label, a factor of its weight; default 1: {audio: {playing guitar: 3}}.",
    )
    missing: Literal["skip", "uniform", "fail"] = Field(
        "skip",
        description="A clip that a member has no score of (no sound): skip counts the others only, uniform counts it "
        "as having no idea, fail makes the clip a model_error.",
    )
    member_errors: Literal["fail", "missing"] = Field(
        "fail", description="A clip on which a member raises: fail makes it a model_error, missing does without it."
    )
    none_below: float = Field(
        0.0, ge=0, le=1, description="A clip whose best score is lower gets none_label and label_id -1."
    )
    none_label: str = Field("none of these", min_length=1)
    calibration: str | None = Field(
        None, description="A file that `vidcls calibrate` wrote: scores of members and ensemble through it."
    )
    cascade: CascadeConfig | None = Field(None, description="Cheap members first; without it all score every clip.")
    top_k: int = Field(5, ge=1, le=1000)

    @field_validator("label_weights")
    @classmethod
    def _label_weights_are_weights(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for name, weights in value.items():
            for label, weight in weights.items():
                if not 0 <= weight < float("inf"):
                    raise ValueError(f"weight of {name!r} for {label!r} is {weight}; it must be finite and >= 0")
        return value

    @model_validator(mode="after")
    def _stacking_has_learned(self) -> "EnsembleConfig":
        if self.rule == "stacking" and self.calibration is None:
            raise ValueError(
                "rule stacking needs ensemble.calibration: learn it with vidcls calibrate RUN --truth FILE --stacking"
            )
        return self

    @field_validator("weights")
    @classmethod
    def _weights_are_weights(cls, value: dict[str, float]) -> dict[str, float]:
        for name, weight in value.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"weight of {name!r} is {weight}; it must be a finite number >= 0")
        if value and sum(value.values()) == 0:
            raise ValueError("all weights are 0; at least one must be above 0")
        return value

    @property
    def asked_first(self) -> tuple[str, ...]:
        """The members that a cascade asks about every clip; none without a cascade."""
        return self.cascade.first if self.cascade else ()


HostMemory = Literal["huge_pages", "kept", "plain"]


class GroupConfig(_Section):
    """Members that one classifier holds beside those of other groups, where no device holds all."""

    members: tuple[str, ...] = Field(min_length=1, description="Names of members.")
    actors: int | None = Field(None, ge=1, description="Most classifiers of this group; default: an equal share.")


def _names_to_group(value: object) -> object:
    return {"members": value} if isinstance(value, list | tuple) else value


_Group = Annotated[GroupConfig, BeforeValidator(_names_to_group, json_schema_input_type=GroupConfig | tuple[str, ...])]


class ResourcesConfig(_Section):
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


class OutputConfig(_Section):
    """What the prediction table holds."""

    unit_clips: int = Field(
        1024, ge=1, le=100_000, description="Clips in a work unit: one Parquet file, committed as one."
    )
    member_logits: bool = Field(False, description="Keep each member's logits (float16 list).")
    member_embeddings: bool = Field(False, description="Keep each member's embedding (float16 list) where it has one.")
    member_context: bool = Field(
        False, description="Keep what new label texts need beside the embedding (X-CLIP: 50 to 200 KB a clip)."
    )
    compression: Literal["zstd", "snappy", "none"] = "zstd"


def _path_to_section(key: str) -> Any:
    def convert(value: object) -> object:
        return {key: value} if isinstance(value, str) else value

    return BeforeValidator(convert)


class Config(_Section):
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
                    hint = _suggestion(name, names)
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
            raise ValueError(f"ensemble.cascade.first: {name!r} is no member{_suggestion(name, names)}")
    if set(cascade.first) == set(names):
        raise ValueError("ensemble.cascade.first names all members, so none is left for the clips they are not sure of")
    if all(ensemble.weights.get(name, 1.0) == 0 for name in cascade.first):
        raise ValueError("ensemble.cascade.first: the weights of these members are 0; they could not decide anything")
    if ensemble.missing != "skip":
        raise ValueError(
            f"ensemble.cascade leaves members out, so ensemble.missing must be skip, not {ensemble.missing}"
        )


def check_groups(groups: Sequence[Sequence[str]], *, names: Sequence[str], cascade_first: Sequence[str]) -> None:
    """Raise ValueError unless each member is in exactly one group, and those a cascade asks first are in the first."""
    listed = [name for group in groups for name in group]
    for name in listed:
        if name not in names:
            raise ValueError(
                f"resources.groups: {name!r} is no member{_suggestion(name, names)}; members: {list(names)}"
            )
        if listed.count(name) > 1:
            raise ValueError(f"resources.groups: member {name!r} is listed twice; one classifier scores it")
    if left_out := [name for name in names if name not in listed]:
        raise ValueError(f"resources.groups leaves out {', '.join(left_out)}: each member must be in a group")
    if later := [name for name in cascade_first if name not in groups[0]]:
        raise ValueError(
            f"ensemble.cascade asks {', '.join(later)} first, so resources.groups must have them in its first group"
        )


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


def ray_address(run: RunConfig) -> str | None:
    """The Ray cluster to join: the config's, else RAY_ADDRESS (set in a submitted job), else None: a private one."""
    return run.ray_address or os.environ.get("RAY_ADDRESS") or None


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


def _suggestion(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f". Did you mean {near[0]!r}?" if near else ""


def _explain(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    location = error["loc"]
    where = ".".join(str(p) for p in location)
    if error["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        hint = _suggestion(str(location[-1]), known)
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
