"""The GPU stage: frames in, one result row per clip out. All members live in one worker; frames are dropped here."""

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from vidcls_batch.config import MemberConfig
from vidcls_batch.errors import Stage, Status, VidclsError
from vidcls_batch.labeling.ensemble import Decision, Scores, agreement, decide, softmax, weighted_mean
from vidcls_batch.labeling.mapping import head_to_run_labels
from vidcls_batch.models.base import combine_views
from vidcls_batch.models.registry import checkpoint_access, load_member
from vidcls_batch.schema import DECODED, ROUTE, MemberColumns, result_schema
from vidcls_batch.stages.decode import FRAMES
from vidcls_batch.storage import StorageOptions
from vidcls_batch.types import FrameRequest, Frames


class DeviceLostError(VidclsError):
    """The accelerator no longer answers in this process; only a new process can go on."""


@dataclass(frozen=True, slots=True)
class ClassifySettings:
    """All that a classifier worker needs; travels to the workers."""

    members: tuple[MemberConfig, ...]
    columns: tuple[MemberColumns, ...]
    weights: tuple[float, ...]
    labels: tuple[str, ...]
    request: FrameRequest
    storage: StorageOptions
    device: str
    num_threads: int
    top_k: int


@dataclass(frozen=True, slots=True)
class _Scored:
    """What one member says of B clips."""

    probabilities: Scores  # [B, K] over the run's labels
    logits: NDArray[np.float32]  # [B, K'], views combined
    embeddings: NDArray[np.float32] | None  # [B, D], mean over views


class BlockClassifier:
    """Scores blocks of decoded clips with all members of the ensemble."""

    def __init__(self, settings: ClassifySettings) -> None:
        # Two torch processes with two threads each on two cores run ten times slower than one after the other.
        torch.set_num_threads(settings.num_threads)
        self._settings = settings
        access = checkpoint_access(settings.storage)
        self._members = [
            load_member(m, labels=settings.labels, device=settings.device, access=access) for m in settings.members
        ]
        self._positions = [head_to_run_labels(m.labels, run_labels=settings.labels) for m in self._members]
        self._schema = result_schema(settings.columns)
        self._largest_batch: int | None = None  # learnt from an out-of-memory error

    def __call__(self, block: pa.Table) -> pa.Table:
        """Rows of ROUTE, DECODED and `frames` to rows of `result_schema`, in the same order. Raises DeviceLostError."""
        frames = frames_of(block)
        status = np.array(block["status"].to_pylist(), dtype=object)
        to_score = np.flatnonzero(status == Status.OK.value)
        rows: list[dict[str, object]] = block.select([*ROUTE.names, *DECODED.names]).to_pylist()
        started = time.perf_counter()
        scored, errors = self._score_isolating(frames, to_score) if len(to_score) else ([], {})
        infer_ms = (time.perf_counter() - started) * 1e3 / max(len(to_score), 1)
        for index, message in errors.items():
            rows[index] |= _model_failure(message)
        for indices, members in scored:
            for index, columns in zip(indices, self._label_columns(members), strict=True):
                rows[index] |= columns | {"infer_ms": infer_ms}
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _score_isolating(
        self, frames: Frames, indices: NDArray[np.int64]
    ) -> tuple[list[tuple[NDArray[np.int64], list[_Scored]]], dict[int, str]]:
        """Score `indices` of `frames`; halve a failing batch until the clip at fault stands alone."""
        if self._largest_batch is not None and len(indices) > self._largest_batch:
            return self._score_halves(frames, indices)
        every = len(indices) == len(frames)
        try:
            return [(indices, self._score(frames if every else frames[indices]))], {}
        except torch.OutOfMemoryError as error:
            failure: Exception = error
            self._largest_batch = max(1, len(indices) // 2)
            torch.cuda.empty_cache()
        except Exception as error:  # the one place where whatever a model raises on a clip becomes its row
            _require_usable_device(self._settings.device, error)
            failure = error
        if len(indices) == 1:
            return [], {int(indices[0]): f"{type(failure).__name__}: {failure}"}
        return self._score_halves(frames, indices)

    def _score_halves(
        self, frames: Frames, indices: NDArray[np.int64]
    ) -> tuple[list[tuple[NDArray[np.int64], list[_Scored]]], dict[int, str]]:
        left, left_errors = self._score_isolating(frames, indices[: len(indices) // 2])
        right, right_errors = self._score_isolating(frames, indices[len(indices) // 2 :])
        return left + right, left_errors | right_errors

    def _score(self, frames: Frames) -> list[_Scored]:
        on_device = _to_device(frames, self._settings.device)
        return [self._score_member(i, on_device) for i in range(len(self._members))]

    def _score_member(self, index: int, frames: torch.Tensor) -> _Scored:
        member = self._members[index]
        slots = self._settings.request.slots_of(member.input.sampling)
        scores = member.score(frames[:, slots])
        logits = combine_views(scores.logits).cpu().numpy()
        if not np.isfinite(logits).all():
            raise ValueError(f"member {member.name} gave logits that are not finite numbers")
        run_logits = np.full((len(logits), len(self._settings.labels)), -np.inf)
        run_logits[:, self._positions[index]] = logits
        embeddings = None if scores.embeddings is None else scores.embeddings.mean(dim=1).cpu().numpy()
        return _Scored(probabilities=softmax(run_logits), logits=logits, embeddings=embeddings)

    def _label_columns(self, members: Sequence[_Scored]) -> list[dict[str, object]]:
        settings = self._settings
        mean = weighted_mean([m.probabilities for m in members], settings.weights)
        overall = decide(mean, top_k=settings.top_k)
        decisions = [decide(m.probabilities, top_k=settings.top_k) for m in members]
        agree = agreement(overall.label_id, [d.label_id for d in decisions], settings.weights)
        rows = []
        for i in range(len(mean)):
            row: dict[str, object] = {
                "label": settings.labels[overall.label_id[i]],
                "label_id": int(overall.label_id[i]),
                "score": float(overall.score[i]),
                "margin": float(overall.margin[i]),
                "entropy": float(overall.entropy[i]),
                "agreement": float(agree[i]),
                **_topk(overall, i, labels=settings.labels, prefix=""),
            }
            for columns, decision, scored in zip(settings.columns, decisions, members, strict=True):
                row |= self._member_columns(columns, decision, scored, i)
            rows.append(row)
        return rows

    def _member_columns(self, columns: MemberColumns, decision: Decision, scored: _Scored, i: int) -> dict[str, object]:
        labels, prefix = self._settings.labels, f"{columns.name}_"
        row: dict[str, object] = {
            f"{prefix}label": labels[decision.label_id[i]],
            f"{prefix}score": float(decision.score[i]),
            **_topk(decision, i, labels=labels, prefix=prefix),
        }
        if columns.num_logits is not None:
            row[f"{prefix}logits"] = scored.logits[i].astype(np.float16)
        if columns.embedding_dim is not None and scored.embeddings is not None:
            row[f"{prefix}embedding"] = scored.embeddings[i].astype(np.float16)
        return row


def frames_of(block: pa.Table) -> Frames:
    """The block's frames uint8 [B, slots, H, W, 3], without a copy where the block is one chunk."""
    column = block[FRAMES].combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    frames: Frames = array.to_numpy_ndarray()
    return frames


def _topk(decision: Decision, i: int, *, labels: Sequence[str], prefix: str) -> dict[str, object]:
    return {
        f"{prefix}topk_labels": [labels[k] for k in decision.topk_ids[i]],
        f"{prefix}topk_scores": [float(s) for s in decision.topk_scores[i]],
    }


def _model_failure(message: str) -> dict[str, object]:
    return {
        "status": Status.MODEL_ERROR.value,
        "error_stage": Stage.CLASSIFY.value,
        "error_code": "member_raised",
        "error_message": message,
    }


def _to_device(frames: Frames, device: str) -> torch.Tensor:
    with warnings.catch_warnings():
        # The block lies read-only in shared memory; the models never write to their input.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(frames).to(device, non_blocking=True)


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
