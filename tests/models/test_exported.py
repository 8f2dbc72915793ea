import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contracts.tiny_checkpoints import BUILDERS, LABELS, videomae

from vidcls_batch.config import LabelSetConfig, MemberConfig
from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.exported import export_member
from vidcls_batch.models.registry import describe_member, load_member

# One of each implementation: a trained head, time attention, two encoders, the prompt generator, convolutions.
FAMILIES = (
    "videomae",
    "xclip",
    *(pytest.param(family, marks=pytest.mark.slow) for family in ("timesformer", "clip", "x3d_xs")),
)

LOAD = """
import sys, torch
from vidcls_batch.config import MemberConfig
from vidcls_batch.models.registry import load_member

folder, frames, logits = sys.argv[1:]
member = load_member(MemberConfig(name="m", family="exported", checkpoint=folder), labels=(), device="cpu")
torch.save(member.logits(torch.load(frames)), logits)
sys.exit("transformers" in sys.modules)
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_member_scores_the_same_at_every_batch_size(family: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    tiny = BUILDERS[family](tmp_path / "source")
    labels = LabelSetConfig(labels=LABELS) if tiny.needs_labels else None
    config = MemberConfig(name="m", family=family, checkpoint=str(tiny.path), labels=labels)
    member = load_member(config, labels=LABELS, device="cpu")
    assert export_member(member, tmp_path / "program").max_difference < 1e-4
    program = load_member(
        MemberConfig(name="m", family="exported", checkpoint=str(tmp_path / "program")), labels=LABELS, device="cpu"
    )
    assert (program.input, program.labels) == (member.input, member.labels)
    for clips in (1, 2, 3):
        frames = torch.randint(0, 256, (clips, member.input.sampling.num_slots, 40, 40, 3), dtype=torch.uint8)
        torch.testing.assert_close(program.logits(frames), member.logits(frames), atol=1e-4, rtol=0)


def test_a_program_loads_in_a_process_that_never_imports_transformers(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    config = MemberConfig(name="m", family="videomae", checkpoint=str(videomae(tmp_path / "source").path))
    member = load_member(config, labels=LABELS, device="cpu")
    export_member(member, tmp_path / "program")
    frames = torch.randint(0, 256, (2, 4, 40, 40, 3), dtype=torch.uint8)
    torch.save(frames, tmp_path / "frames.pt")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "program"), str(tmp_path / "frames.pt")]
    done = subprocess.run([*command, str(tmp_path / "logits.pt")], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), member.logits(frames), atol=1e-5, rtol=0)


def test_a_folder_without_its_description_or_with_a_damaged_program_is_refused(tmp_path: Path) -> None:
    config = MemberConfig(name="m", family="exported", checkpoint=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"has no member.json"):
        describe_member(config, labels=LABELS)
    (tmp_path / "member.json").write_text('{"labels": ["a"], "input": {"short_side": 3}}')
    with pytest.raises(CheckpointError, match="is not understood"):
        describe_member(config, labels=LABELS)
