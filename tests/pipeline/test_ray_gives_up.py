"""What ends a run on Ray's side is told in words, with what to do; never as a traceback."""

import pytest
import torch
from contracts.tiny_checkpoints import LABELS

from vidcls_batch.errors import ClusterError
from vidcls_batch.labeling_run import run_labeling
from vidcls_batch.progress import SilentProgress

pytestmark = pytest.mark.usefixtures("ray_session")


def test_classifier_that_cannot_start_names_its_reason(make_config, write_manifest, clips, tmp_path):
    torch.save({"weight": torch.eye(3), "bias": torch.zeros(3)}, tmp_path / "weights.pth")
    member = {"name": "m", "family": "worker_models:LOST_ON_WORKERS", "checkpoint": str(tmp_path / "weights.pth")}
    config = make_config(write_manifest(clips[:3]), members=[member | {"labels": list(LABELS)}])
    with pytest.raises(ClusterError, match="no such library on this worker"):
        run_labeling(config, progress=SilentProgress())
