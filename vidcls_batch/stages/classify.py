"""The GPU stage: frames in, one result row per clip out. All members live in one worker; frames are dropped here.

Where no device holds all members, several workers in a row hold a group each; the last one makes the rows.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from vidcls_batch.config import HostMemory, MemberConfig
from vidcls_batch.errors import Stage, Status, VidclsError
from vidcls_batch.labeling.cascade import Cascade, score_in_steps
from vidcls_batch.labeling.labeler import LabelingSettings, MemberEvidence, label_clips
from vidcls_batch.models.base import Scores, combine_views
from vidcls_batch.models.member import LoadedMember
from vidcls_batch.models.registry import checkpoint_access, load_member
from vidcls_batch.schema import DECODED, ROUTE, MemberColumns, result_schema
from vidcls_batch.stages.block_clips import BlockClips, ClipsOnDevice
from vidcls_batch.stages.decode import FRAMES, SOUND, SOUND_LENGTHS, tensor_of
from vidcls_batch.stages.host_copies import HostCopies
from vidcls_batch.stages.host_memory import set_host_memory
from vidcls_batch.stages.member_groups import (
    INFER_MS,
    EvidenceWidths,
    GroupEvidence,
    MemberGroup,
    evidence_in,
    with_evidence,
)
from vidcls_batch.stages.usage import WorkerUsage
from vidcls_batch.storage import StorageOptions
from vidcls_batch.types import FrameRequest, Frames


class DeviceLostError(VidclsError):
    """The accelerator no longer answers in this process; only a new process can go on."""


@dataclass(frozen=True, slots=True)
class ClassifySettings:
    """All that a classifier worker needs; travels to the workers."""

    members: tuple[MemberConfig, ...]
    columns: tuple[MemberColumns, ...]
    labeling: LabelingSettings
    request: FrameRequest
    storage: StorageOptions
    device: str
    num_threads: int
    aliases: tuple[tuple[str, ...], ...] = ()  # other names of each label, for zero-shot members
    member_errors: Literal["fail", "missing"] = "fail"
    cascade: Cascade | None = None
    host_memory: HostMemory = "plain"  # where members run on the CPU
    widths: tuple[EvidenceWidths, ...] = ()  # of each member's evidence, for groups
    group: MemberGroup | None = None  # None: this worker holds all members

    def in_group(self, group: MemberGroup) -> "ClassifySettings":
        """The settings of a worker that holds this group."""
        return replace(self, group=group)


@dataclass(frozen=True, slots=True)
class _Scored:
    """Positions in the block, and what each member, by its position, says of the clips there."""

    indices: NDArray[np.int64]
    members: Mapping[int, MemberEvidence]
    infer_ms: NDArray[np.float64]
    routes: NDArray[np.object_] | None = None


class BlockClassifier:
    """Scores blocks of decoded clips with all members of the ensemble, or with one group of them."""

    def __init__(self, settings: ClassifySettings) -> None:
        # Two torch processes with two threads each on two cores run ten times slower than one after the other.
        torch.set_num_threads(settings.num_threads)
        if settings.device == "cpu":
            set_host_memory(settings.host_memory)
        self._settings = settings
        access = checkpoint_access(settings.storage)
        everyone = tuple(range(len(settings.members)))
        self._group = settings.group or MemberGroup(held=everyone, known=(), is_last=True)
        self._members = {
            index: load_member(
                settings.members[index],
                labels=settings.labeling.labels,
                aliases=settings.aliases,
                device=settings.device,
                access=access,
            )
            for index in self._group.held
        }
        self._schema = result_schema(settings.columns)
        self._largest_batch: int | None = None  # learnt from an out-of-memory error
        self._copies = HostCopies(settings.device)
        self._scoring_s = 0.0
        self._first_block_at: float | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows of ROUTE, DECODED, `frames` and, where a member hears, sound to rows of `result_schema`, in the same
        order; of a group that is not the last to the same rows with its members' evidence. Raises DeviceLostError.
        """
        started = time.perf_counter()
        if self._first_block_at is None:
            self._first_block_at = started
        known = evidence_in(block, known=self._group.known, widths=self._settings.widths)
        clips = BlockClips(frames_of(block), np.array(block["clip_id"].to_pylist(), object), known)
        if self._settings.request.sounds:
            clips = replace(clips, samples=tensor_of(block, SOUND), lengths=tensor_of(block, SOUND_LENGTHS))
        to_score = np.flatnonzero(pc.equal(block["status"], Status.OK.value).to_numpy())
        scored, errors = self._score_isolating(clips, to_score) if len(to_score) else ([], {})
        self._scoring_s += time.perf_counter() - started
        infer_ms = block[INFER_MS].to_numpy().copy() if self._group.known else np.zeros(len(block))
        for some in scored:
            infer_ms[some.indices] += some.infer_ms
        failures = {i: ("member_raised", message) for i, message in errors.items()}
        if not self._group.is_last:
            return self._handed_on(with_failures(block, failures), scored, infer_ms)
        labeled, unlabeled = self._label(scored, infer_ms)
        failures |= {i: ("no_score", message) for i, message in unlabeled.items()}
        decoded = with_failures(block.select([*ROUTE.names, *DECODED.names]), failures)
        columns = {name: decoded[name] for name in decoded.column_names} | labeled
        return pa.table([columns[field.name].cast(field.type) for field in self._schema], schema=self._schema)

    def usage(self) -> WorkerUsage:
        """How much of its time it has scored so far."""
        alive = 0.0 if self._first_block_at is None else time.perf_counter() - self._first_block_at
        return WorkerUsage(self._scoring_s, alive)

    def _handed_on(self, block: pa.Table, scored: Sequence[_Scored], infer_ms: NDArray[np.float64]) -> pa.Table:
        if INFER_MS in block.column_names:
            block = block.drop_columns([INFER_MS])
        evidence = [GroupEvidence(some.indices, some.members) for some in scored]
        block = with_evidence(block, evidence, held=self._group.held, widths=self._settings.widths)
        return block.append_column(INFER_MS, pa.array(infer_ms))

    def _label(
        self, scored: Sequence[_Scored], infer_ms: NDArray[np.float64]
    ) -> tuple[dict[str, pa.ChunkedArray], dict[int, str]]:
        """Label columns in the block's order, null for rows that are not in `scored`; and why some got no label."""
        settings = self._settings
        num_rows = len(infer_ms)
        order = np.full(num_rows, -1)
        parts: list[dict[str, pa.Array]] = []
        unlabeled: dict[int, str] = {}
        count = 0
        for some in scored:
            members = [some.members[index] for index in range(len(settings.members))]
            found = label_clips(members, settings=settings.labeling, columns=settings.columns)
            order[some.indices] = count + np.arange(len(some.indices))
            count += len(some.indices)
            columns = {**found.columns, INFER_MS: pa.chunked_array([pa.array(infer_ms[some.indices])])}
            if some.routes is not None:
                columns["cascade"] = pa.chunked_array([pa.array(some.routes, pa.string())])
            parts.append(columns)
            unlabeled |= {int(some.indices[position]): reason for position, reason in found.unlabeled.items()}
        take = pa.array(order, mask=order < 0)
        names = [f.name for f in self._schema if f.name not in (*ROUTE.names, *DECODED.names)]
        if not parts:
            return {n: pa.nulls(num_rows, self._schema.field(n).type) for n in names}, unlabeled
        joined = {n: pa.chunked_array([chunk for part in parts for chunk in part[n].chunks]) for n in names}
        return {n: column.combine_chunks().take(take) for n, column in joined.items()}, unlabeled

    def _score_isolating(self, clips: BlockClips, indices: NDArray[np.int64]) -> tuple[list[_Scored], dict[int, str]]:
        """Score the clips at `indices`; halve a failing batch until the clip at fault stands alone."""
        if self._largest_batch is not None and len(indices) > self._largest_batch:
            return self._score_halves(clips, indices)
        try:
            return self._score(clips.part(indices), indices), {}
        except torch.OutOfMemoryError as error:
            failure: Exception = error
            self._largest_batch = max(1, len(indices) // 2)
            torch.cuda.empty_cache()
        except Exception as error:  # the one place where whatever a model raises on a clip becomes its row
            _require_usable_device(self._settings.device, error)
            failure = error
        if len(indices) == 1:
            if self._settings.member_errors == "missing":
                return [self._score_tolerant(clips.part(indices), indices)], {}
            return [], {int(indices[0]): f"{type(failure).__name__}: {failure}"}
        return self._score_halves(clips, indices)

    def _score_halves(self, clips: BlockClips, indices: NDArray[np.int64]) -> tuple[list[_Scored], dict[int, str]]:
        left, left_errors = self._score_isolating(clips, indices[: len(indices) // 2])
        right, right_errors = self._score_isolating(clips, indices[len(indices) // 2 :])
        return left + right, left_errors | right_errors

    def _score(self, clips: BlockClips, indices: NDArray[np.int64]) -> list[_Scored]:
        """Part by part: while the device scores one, the frames of the next are on their way to it."""
        parts = self._copies.parts(len(indices))
        coming = clips.part(parts[0]).start_copy(self._copies)
        scored = []
        for here, following in zip(parts, [*parts[1:], None], strict=True):
            started = time.perf_counter()
            on_device = coming()
            chosen = clips.part(here)
            # On CUDA this only queues the work; nothing waits for it before the next copy has begun.
            queued = None
            if self._settings.cascade is None:
                queued = {index: self._launch(member, on_device) for index, member in self._members.items()}
            if following is not None:
                coming = clips.part(following).start_copy(self._copies)
            if queued is None:
                scored.append(self._score_cascade(on_device, chosen, indices[here]))
            else:
                own = {index: self._collect(self._members[index], scores) for index, scores in queued.items()}
                scored.append(_Scored(indices[here], {**chosen.known, **own}, _per_clip_ms(started, len(on_device))))
        return scored

    def _score_cascade(self, on_device: ClipsOnDevice, clips: BlockClips, indices: NDArray[np.int64]) -> _Scored:
        assert self._settings.cascade is not None

        def score(index: int, asked: NDArray[np.int64]) -> MemberEvidence:
            member = self._members[index]
            return self._collect(member, self._launch(member, on_device.part(asked)))

        steps = score_in_steps(
            score,
            cascade=self._settings.cascade,
            clip_ids=clips.ids.tolist(),
            settings=self._settings.labeling,
            held=self._group.held,
            known=clips.known,
        )
        return _Scored(indices, steps.members, steps.infer_ms, steps.routes)

    def _score_tolerant(self, clips: BlockClips, indices: NDArray[np.int64]) -> _Scored:
        """Like `_score` without a cascade; a member that raises on these clips is missing there."""
        started = time.perf_counter()
        on_device = clips.start_copy(self._copies)()
        found = dict(clips.known)
        for index, member in self._members.items():
            try:
                found[index] = self._collect(member, self._launch(member, on_device))
            except Exception as error:  # whatever a model raises on a clip: its row tells, by null columns
                _require_usable_device(self._settings.device, error)
                nothing = np.zeros((len(indices), self._settings.labeling.maps[index].num_outputs), np.float32)
                found[index] = MemberEvidence(nothing, present=np.zeros(len(indices), np.bool_))
        return _Scored(indices, found, _per_clip_ms(started, len(indices)))

    def _launch(self, member: LoadedMember, clips: ClipsOnDevice) -> Scores:
        request = self._settings.request
        frames = None if member.input is None else clips.frames[:, request.slots_of(member.input.sampling)]
        sound = None if member.sound is None else clips.sound(member.sound, request=request)
        return member.score(frames, sound)

    def _collect(self, member: LoadedMember, scores: Scores) -> MemberEvidence:
        evidence = evidence_of(scores)
        here = evidence.present
        if not np.isfinite(evidence.logits if here is None else evidence.logits[here]).all():
            raise ValueError(f"member {member.name} gave logits that are not finite numbers")
        return evidence


def _per_clip_ms(started: float, clips: int) -> NDArray[np.float64]:
    return np.full(clips, (time.perf_counter() - started) * 1e3 / max(clips, 1))


def evidence_of(scores: Scores) -> MemberEvidence:
    """A member's scores of [B, V, ...] views as numbers per clip; a clip counts as present when all its views are."""

    def mean_of_views(values: torch.Tensor | None) -> NDArray[np.float32] | None:
        return None if values is None else values.mean(dim=1).cpu().numpy()

    return MemberEvidence(
        logits=combine_views(scores.logits).cpu().numpy(),
        embedding=mean_of_views(scores.embeddings),
        context=mean_of_views(scores.context),
        present=None if scores.present is None else scores.present.all(dim=1).cpu().numpy(),
    )


def with_failures(rows: pa.Table, failures: Mapping[int, tuple[str, str]]) -> pa.Table:
    """The rows with status and error columns of those at the positions in `failures` (code, message) as model_error."""
    if not failures:
        return rows
    positions = np.array(sorted(failures))
    failed = np.zeros(len(rows), np.bool_)
    failed[positions] = True
    mask = pa.array(failed)
    codes, messages = zip(*(failures[i] for i in positions.tolist()), strict=True)
    for name, values in (
        ("status", [Status.MODEL_ERROR.value] * len(positions)),
        ("error_stage", [Stage.CLASSIFY.value] * len(positions)),
        ("error_code", codes),
        ("error_message", messages),
    ):
        index = rows.schema.get_field_index(name)
        field = rows.schema.field(index)
        column = pc.replace_with_mask(rows[name].combine_chunks(), mask, pa.array(values, field.type))
        rows = rows.set_column(index, field, column)
    return rows


def frames_of(block: pa.Table) -> Frames:
    """The block's frames uint8 [B, slots, H, W, 3], without a copy where the block is one chunk."""
    return tensor_of(block, FRAMES)


def _require_usable_device(device: str, error: Exception) -> None:
    """After a CUDA fault every later call fails too, and would blame clip after clip. Raises DeviceLostError."""
    if not device.startswith("cuda"):
        return
    try:
        torch.cuda.synchronize(device)
        usable = math.isclose(float(torch.ones(1, device=device).sum()), 1.0)
    except RuntimeError:
        usable = False
    if not usable:
        raise DeviceLostError(f"{device} is lost: {error}") from error
