"""Everything a run is, settled before anything starts: members described, frames planned, schema derived."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

import vidcls_batch
from vidcls_batch.config import Config, ray_address, resolved
from vidcls_batch.dataset.run_record import RunIdentity, RunRecord, run_identity
from vidcls_batch.errors import ConfigError
from vidcls_batch.label_sets import LabelSet, load_label_set
from vidcls_batch.labeling_setup import LabelingSetup, set_up_labeling
from vidcls_batch.models.base import MemberDescription
from vidcls_batch.models.checkpoints import CheckpointAccess
from vidcls_batch.models.registry import checkpoint_access, describe_member, member_texts, pinned, weights_sha256
from vidcls_batch.models.zero_shot import texts_digest
from vidcls_batch.resources import StageResources
from vidcls_batch.schema import MemberColumns, prediction_schema, reserved_columns
from vidcls_batch.stages.classify import ClassifySettings
from vidcls_batch.stages.decode import DecodeSettings
from vidcls_batch.stages.fetch import FetchSettings
from vidcls_batch.stages.member_groups import EvidenceWidths
from vidcls_batch.storage import AllowedUris, StorageOptions, storage_options
from vidcls_batch.types import FrameRequest, Sampling
from vidcls_batch.video.decoders.base import decoder_provenance

LISTENING_SIDE = 112  # of the one frame a run decodes whose members see none
LIBRARIES = ("av", "numpy", "pyarrow", "ray", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A config with all its questions answered."""

    config: Config
    storage: StorageOptions
    label_set: LabelSet
    members: tuple[MemberDescription, ...]
    request: FrameRequest
    columns: tuple[MemberColumns, ...]
    labeling: LabelingSetup

    @property
    def frame_bytes(self) -> int:
        """Bytes of one clip's frames and sound on their way from decoding to the classifier."""
        return self.request.clip_bytes

    @property
    def reserved_columns(self) -> frozenset[str]:
        """Names that the manifest's own columns must not have."""
        return reserved_columns(self.columns)

    def schema(self, extras: pa.Schema) -> pa.Schema:
        """The schema of the run's prediction files, `extras` being the manifest's own columns."""
        return prediction_schema(self.columns, extras=extras)

    def decode_settings(self) -> DecodeSettings:
        """What decode workers are told."""
        decode = self.config.decode
        return DecodeSettings(
            request=self.request,
            limits=decode.limits,
            backend=decode.backend,
            fetch=FetchSettings(
                timeout_s=decode.fetch_timeout_s,
                retries=decode.fetch_retries,
                range_above_bytes=None if decode.range_above_mb is None else decode.range_above_mb << 20,
            ),
            storage=self.storage,
            allowed=self.allowed,
        )

    @property
    def allowed(self) -> AllowedUris:
        """What the manifest's URIs may be: on a cluster less than on one's own machine."""
        return AllowedUris(self.config.manifest.allow, anything=ray_address(self.config.run) is None)

    def classify_settings(self, resources: StageResources) -> ClassifySettings:
        """What classifier workers are told."""
        return ClassifySettings(
            members=self.config.members,
            columns=self.columns,
            labeling=self.labeling.settings,
            request=self.request,
            storage=self.storage,
            device=resources.device,
            num_threads=resources.num_threads,
            aliases=self.aliases,
            member_errors=self.config.ensemble.member_errors,
            cascade=self.labeling.cascade,
            host_memory=self.config.resources.host_memory,
            widths=tuple(self._widths(m, columns) for m, columns in zip(self.members, self.columns, strict=True)),
        )

    def _widths(self, member: MemberDescription, columns: MemberColumns) -> EvidenceWidths:
        """Of its evidence what the labels or the table need."""
        embeds = columns.embedding_dim is not None or member.name in self.labeling.embeds
        return EvidenceWidths(
            logits=len(member.labels),
            embedding=member.embedding_dim if embeds else None,
            context=columns.context_dim,
        )

    def identity(self) -> RunIdentity:
        """What must be the same when the run is resumed. Hashes the weights."""
        facts: dict[str, Any] = {"label_set": {"digest": self.label_set.digest}}
        facts["weights_sha256"] = {m.name: weights_sha256(m, access=self._access) for m in self.config.members}
        facts["label_texts"] = self.text_digests()
        facts |= self.labeling.facts
        return run_identity(self.config, facts=facts)

    @property
    def aliases(self) -> tuple[tuple[str, ...], ...]:
        """Other names of each label."""
        return tuple(entry.aliases for entry in self.label_set.entries)

    def text_digests(self) -> dict[str, str]:
        """Digest of the texts behind each zero-shot member's outputs."""
        return {
            m.name: texts_digest(member_texts(m, described, labels=self.label_set.labels, aliases=self.aliases))
            for m, described in zip(self.config.members, self.members, strict=True)
            if described.zero_shot
        }

    def record(self) -> RunRecord:
        """What the table's labels rest on; goes into run.json and each file's footer. Hashes the weights."""
        return RunRecord(config=resolved(self.config), provenance=self._provenance())

    def _provenance(self) -> dict[str, Any]:
        return {
            "vidcls_batch": vidcls_batch.__version__,
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in LIBRARIES},
            "label_set": {
                "name": self.label_set.name,
                "num_labels": len(self.label_set.labels),
                "digest": self.label_set.digest,
            },
            "decoder": decoder_provenance(self.config.decode.backend),
            "frames": {
                "shape": list(self.request.frames_shape),
                "samplings": [asdict(s) for s in self.request.samplings],
            },
            "sounds": [asdict(w) for w in self.request.sounds],
            "label_texts": self.text_digests(),
            "labeling_files": dict(self.labeling.facts),
            "members": [self._member_provenance(m) for m in self.members],
            # Inference draws no random numbers; said so that nobody looks for a seed.
            "seeds": None,
        }

    def licence_notes(self) -> list[str]:
        """A line per member whose weights may not be used for everything."""
        return [
            f"Member {m.name}: the weights of {m.checkpoint} are licensed {m.licence} (no commercial use)."
            for m in self.members
            if m.licence and "-nc" in m.licence.lower()
        ]

    def _member_provenance(self, member: MemberDescription) -> dict[str, Any]:
        config = next(c for c in self.config.members if c.name == member.name)
        facts = asdict(member) | {"weights_sha256": weights_sha256(config, access=self._access)}
        # The labels of a big head would fill each footer; the label set's digest stands for them.
        return {key: value for key, value in facts.items() if key != "labels"}

    @property
    def _access(self) -> CheckpointAccess:
        return checkpoint_access(self.storage)


def resolve_run(config: Config) -> RunSpec:
    """Describe members, plan frames, check labels. Raises ConfigError or CheckpointError; loads no weights."""
    storage = storage_options(config.run)
    label_set = load_label_set(config.label_set)
    if config.ensemble.top_k > len(label_set.labels):
        config = _with_top_k(config, len(label_set.labels))
    access = checkpoint_access(storage)
    members = tuple(describe_member(m, labels=label_set.labels, access=access) for m in config.members)
    # All actors must load the very revision described here, whatever the hub serves by then.
    config = config.model_copy(
        update={"members": tuple(pinned(c, m) for c, m in zip(config.members, members, strict=True))}
    )
    labeling = set_up_labeling(config, label_set=label_set, members=members)
    lacking = [m.name for m in members if m.name in labeling.embeds and m.embedding_dim is None]
    if lacking:
        raise ConfigError(f"ensemble.calibration looks at embeddings of {lacking[0]}, which has none; calibrate again")
    if config.output.member_context and all(m.context_dim is None for m in members):
        raise ConfigError("output.member_context is on, but no member of this run has a context; turn it off")
    if config.output.member_embeddings and all(m.embedding_dim is None for m in members):
        raise ConfigError("output.member_embeddings is on, but no member of this run has an embedding; turn it off")
    return RunSpec(
        config=config,
        storage=storage,
        label_set=label_set,
        members=members,
        request=_frame_request(config, members),
        columns=tuple(_columns(config, m) for m in members),
        labeling=labeling,
    )


def _frame_request(config: Config, members: tuple[MemberDescription, ...]) -> FrameRequest:
    inputs = [m.input for m in members if m.input is not None]
    # Members that want the same frames or sound share them: one decode, one copy through the object store.
    # A run that only listens still sees a frame of each clip: for the decode quality columns, and so that a file
    # without pictures is `no_video` in every run.
    samplings = tuple(dict.fromkeys(spec.sampling for spec in inputs)) or (Sampling(num_frames=1),)
    side = config.decode.short_side or max((spec.short_side for spec in inputs), default=LISTENING_SIDE)
    sounds = tuple(dict.fromkeys(m.sound for m in members if m.sound is not None))
    return FrameRequest(samplings=samplings, height=side, width=side, sounds=sounds)


def _columns(config: Config, member: MemberDescription) -> MemberColumns:
    return MemberColumns(
        name=member.name,
        num_logits=len(member.labels) if config.output.member_logits else None,
        embedding_dim=member.embedding_dim if config.output.member_embeddings else None,
        context_dim=member.context_dim if config.output.member_context else None,
    )


def _with_top_k(config: Config, top_k: int) -> Config:
    ensemble: Mapping[str, Any] = config.ensemble.model_dump() | {"top_k": top_k}
    return config.model_copy(update={"ensemble": type(config.ensemble).model_validate(ensemble)})
