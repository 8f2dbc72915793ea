"""What ends a run on Ray's side is told in words, with what to do; never as a traceback."""

import pytest
import torch
from contracts.tiny_checkpoints import LABELS

from vidcls_batch.errors import ClusterError
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.pipeline import death_reason
from vidcls_batch.progress import SilentProgress

pytestmark = pytest.mark.usefixtures("ray_session")


def test_classifier_that_cannot_start_names_its_reason(make_config, write_manifest, clips, tmp_path):
    torch.save({"weight": torch.eye(3), "bias": torch.zeros(3)}, tmp_path / "weights.pth")
    member = {"name": "m", "family": "worker_models:LOST_ON_WORKERS", "checkpoint": str(tmp_path / "weights.pth")}
    config = make_config(write_manifest(clips[:3]), members=[member | {"labels": list(LABELS)}])
    with pytest.raises(ClusterError, match="no such library on this worker"):
        run_labeling(config, progress=SilentProgress())


def test_worker_killed_for_memory_is_told_as_such() -> None:
    said = "Task was killed.\nOOM kill reason: Memory usage 20B exceeded threshold of 19B\nTop 10 users"
    assert death_reason(MemoryError(said)) == (
        "MemoryError: killed because its node ran out of memory: Memory usage 20B exceeded threshold of 19B"
    )
    assert death_reason(MemoryError("first\n  the cause\n\n")) == "MemoryError: the cause"
