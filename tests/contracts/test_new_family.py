"""A family of ten lines is held to the whole contract suite by its row and its tiny checkpoint alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

FAMILY = """
import torch
from vidcls_batch.models.base import Scores
from vidcls_batch.models.recipes import square
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.types import Sampling

class Colours(torch.nn.Linear):
    def forward(self, pixels):
        return Scores(logits=super().forward(pixels.mean(dim=(3, 4)).flatten(1)))

FAMILY = StateDictFamily(build=lambda k: Colours(12, k), head_weight="weight", sampling=Sampling(4),
    recipe=lambda s: square(s, 16, mean=(0., 0., 0.), std=(1., 1., 1.)), embedding_dim=None)
"""

PLUGIN = """
import torch
from contracts import tiny_checkpoints
from vidcls_batch.models import families, registry

def build(folder):
    weight, bias = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)), torch.zeros(3)
    torch.save({"weight": weight, "bias": bias}, folder / "weights.pth")
    reference = lambda pixels, _: pixels.mean(dim=(3, 4)).flatten(1) @ weight.T
    return tiny_checkpoints.TinyCheckpoint(folder / "weights.pth", reference, needs_labels=True)

row = families.FamilyFacts(family="colours", code="ten_lines:FAMILY", sampling="4 frames", size=16, models=())
registry.FAMILIES = (*families.FAMILIES, row)
if WITH_BUILDER:
    tiny_checkpoints.BUILDERS["colours"] = build
"""


@pytest.mark.slow
@pytest.mark.parametrize("with_builder", [True, False])
def test_a_new_family_is_picked_up_by_the_contract_suite(with_builder: bool, tmp_path: Path) -> None:
    (tmp_path / "ten_lines.py").write_text(FAMILY)
    (tmp_path / "adds_a_family.py").write_text(PLUGIN.replace("WITH_BUILDER", str(with_builder)))
    paths = [str(tmp_path), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "pytest", "-p", "adds_a_family", "-p", "no:cacheprovider", "-k", "colours"]
    done = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "temp"), str(TESTS / "contracts" / "test_models.py"), "-vv"],
        check=False,
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if with_builder:
        assert done.returncode == 0, done.stdout[-3000:]
        assert done.stdout.count("PASSED") >= 12
        assert "test_each_clip_is_scored_by_itself[colours]" in done.stdout
    else:
        assert done.returncode == 1
        assert "colours is registered without a tiny checkpoint" in done.stdout
