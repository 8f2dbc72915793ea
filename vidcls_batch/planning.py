"""Planning without labeling: check all that a run needs, freeze its plan. Needs no Ray."""

from dataclasses import dataclass
from typing import Literal

from vidcls_batch.config import Config
from vidcls_batch.dataset.commit import pending_units
from vidcls_batch.dataset.plan import Plan, load_plan, make_plan, read_unit
from vidcls_batch.errors import ConfigError, UriNotAllowedError
from vidcls_batch.progress import RunProgress
from vidcls_batch.run_spec import RunSpec, resolve_run
from vidcls_batch.storage import AllowedUris, Store, open_store
from vidcls_batch.types import SoundWindow


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What `vidcls plan` found."""

    run_uri: str
    num_clips: int
    num_units: int
    pending_units: int
    members: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...] | Literal["auto"] | None  # of members that share a classifier; None: all do
    frames_shape: tuple[int, ...]  # of one clip: slots, height, width, RGB
    sounds: tuple[SoundWindow, ...]
    frame_bytes: int  # of one clip, its sound with it
    columns: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        slots, height, width, _ = self.frames_shape
        picture = f"{slots} frames of {width}x{height}{self._sound}"
        lines = [
            f"{self.num_clips:,} clips in {self.num_units:,} units ({self.pending_units:,} to do) in {self.run_uri}",
            f"  members   {', '.join(self.members)}{self._groups}",
            f"  decode    {picture} for each clip, {self.frame_bytes / 1e6:.1f} MB",
            f"  columns   {', '.join(self.columns)}",
        ]
        return "\n".join([*lines, *(f"  note      {n}" for n in self.notes)])

    @property
    def _groups(self) -> str:
        if self.groups is None:
            return ""
        if self.groups == "auto":
            return "; in the fewest groups that fit a device"
        return f"; in {len(self.groups)} groups: " + "; ".join(" + ".join(group) for group in self.groups)

    @property
    def _sound(self) -> str:
        return "".join(f" and {w.seconds:.1f} s of sound at {w.sample_rate:,} Hz" for w in self.sounds)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that could start now: its questions answered, its plan frozen."""

    spec: RunSpec
    store: Store
    plan: Plan
    pending: tuple[int, ...]  # units without a committed object

    @property
    def summary(self) -> PlanSummary:
        """Its facts, for people and scripts."""
        groups = self.spec.config.resources.groups
        return PlanSummary(
            run_uri=self.store.uri,
            num_clips=self.plan.num_clips,
            num_units=self.plan.num_units,
            pending_units=len(self.pending),
            members=tuple(m.name for m in self.spec.members),
            groups=groups if groups is None or groups == "auto" else tuple(group.members for group in groups),
            frames_shape=self.spec.request.frames_shape,
            sounds=self.spec.request.sounds,
            frame_bytes=self.spec.frame_bytes,
            columns=tuple(self.spec.schema(self.plan.extra_schema).names),
            notes=(*self.spec.licence_notes(), *self.spec.labeling.coverage.lines()),
        )


def plan_run(config: Config, *, progress: RunProgress) -> PlannedRun:
    """Check all that a run needs and freeze its plan; labels nothing. Raises what `run_labeling` raises early."""
    spec = resolve_run(config)
    store = open_store(config.run.path, options=spec.storage)
    plan = freeze_plan(spec, store=store, progress=progress)
    return PlannedRun(spec=spec, store=store, plan=plan, pending=tuple(pending_units(store, plan)))


def freeze_plan(spec: RunSpec, *, store: Store, progress: RunProgress) -> Plan:
    """Make the run's plan, or confirm the one that is there. Raises ManifestError, RunMismatchError, StorageError."""
    known = load_plan(store)
    progress.say(f"Planning {spec.config.manifest.path} ..." if known is None else f"Resuming {store.uri} ...")
    plan = make_plan(
        spec.config, store=store, options=spec.storage, identity=spec.identity(), reserved=spec.reserved_columns
    )
    progress.say(f"{plan.num_clips:,} clips in {plan.num_units:,} units")
    _require_some_allowed(spec, store)
    return plan


def _require_some_allowed(spec: RunSpec, store: Store) -> None:
    """Raise ConfigError when a whole unit may not be read: that is no stray clip but a setting left out."""
    if spec.allowed == AllowedUris():
        return
    refused: UriNotAllowedError | None = None
    for uri in read_unit(store, 0)["uri"].to_pylist():
        try:
            spec.allowed.check(uri)
        except UriNotAllowedError as error:
            refused = error
        else:
            return
    raise ConfigError(f"{refused}. Set manifest.allow to where the clips of this manifest may lie.")
