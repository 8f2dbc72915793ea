"""The table of families, what it prints, and a family that a user adds."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vidcls_batch.config import MemberConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.models import families, registry
from vidcls_batch.models.families import FamilyFacts
from vidcls_batch.models.registry import family_facts, list_families, load_member, open_family

# A whole family, as someone would write it: the mean colour of the clip, times a weight per label.
TEN_LINES = """
import torch
from vidcls_batch.models.recipes import square
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.models.base import Scores
from vidcls_batch.types import Sampling

class MeanColour(torch.nn.Linear):
    def forward(self, pixels):
        return Scores(logits=super().forward(pixels.mean(dim=(1, 3, 4))))

FAMILY = StateDictFamily(build=lambda k: MeanColour(3, k), head_weight="weight", sampling=Sampling(4),
    recipe=lambda s: square(s, 16, mean=(0., 0., 0.), std=(1., 1., 1.)), embedding_dim=None)
"""


def test_names_are_unique_and_the_code_of_each_family_is_there() -> None:
    names = [facts.family for facts in list_families()]
    assert len(set(names)) == len(names)
    for facts in list_families():
        if facts.available:
            open_family(facts.family)


def test_a_family_whose_extra_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = FamilyFacts(
        family="x", code="x:y", sampling="1 frame", size=1, models=(), extra="torchvision", needs=("nosuchmodule",)
    )
    monkeypatch.setattr(registry, "FAMILIES", (facts,))
    with pytest.raises(ConfigError, match=r"needs nosuchmodule; .* pip install 'vidcls-batch\[torchvision\]'"):
        open_family("x")


def test_a_family_of_ten_lines_scores_once_it_has_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mean_colour.py").write_text(TEN_LINES)
    monkeypatch.syspath_prepend(tmp_path)
    row = FamilyFacts(family="mean_colour", code="mean_colour:FAMILY", sampling="4 frames", size=16, models=())
    monkeypatch.setattr(registry, "FAMILIES", (*families.FAMILIES, row))
    assert family_facts("mean_colour") in list_families()
    torch.save({"weight": torch.eye(3), "bias": torch.zeros(3)}, tmp_path / "weights.pth")
    config = MemberConfig(
        name="m",
        family="mean_colour",
        checkpoint=str(tmp_path / "weights.pth"),
        labels={"labels": ("red", "green", "blue")},
    )
    member = load_member(config, labels=("red", "green", "blue"), device="cpu")
    frames = torch.zeros(1, 4, 20, 30, 3, dtype=torch.uint8)
    frames[..., 1] = 255
    torch.testing.assert_close(member.logits(frames), torch.tensor([[[0.0, 1.0, 0.0]]]))


def test_the_table_is_printed_without_loading_torch() -> None:
    script = (
        "import sys; from vidcls_batch.models.registry import list_families; list_families(); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


BROKEN_TORCHVISION = """
import torch
@torch.library.register_fake("torchvision::nms")
def meta_nms(dets, scores, iou_threshold):
    raise NotImplementedError
__version__ = "0.28.0"
"""


def test_torchvision_imports_on_a_torch_its_operators_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN_TORCHVISION)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n    import torchvision\n    sys.exit('should have failed')\nexcept RuntimeError:\n    pass\n"
        "from vidcls_batch.models.torchvision_import import import_torchvision, prepare_transformers\n"
        "assert import_torchvision().__version__ == '0.28.0'\n"
        "prepare_transformers()\n"
        "import torchvision\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_family_of_ones_own_package_needs_no_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "their_colours.py").write_text(TEN_LINES)
    monkeypatch.syspath_prepend(tmp_path)
    torch.save({"weight": torch.eye(3), "bias": torch.zeros(3)}, tmp_path / "weights.pth")
    config = MemberConfig(
        name="m",
        family="their_colours:FAMILY",
        checkpoint=str(tmp_path / "weights.pth"),
        labels={"labels": ("red", "green", "blue")},
    )
    member = load_member(config, labels=("red", "green", "blue"), device="cpu")
    frames = torch.zeros(1, 4, 20, 30, 3, dtype=torch.uint8)
    frames[..., 2] = 255
    torch.testing.assert_close(member.logits(frames), torch.tensor([[[0.0, 0.0, 1.0]]]))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("no_such_package:FAMILY", r"cannot be imported: No module named 'no_such_package'"),
        ("pathlib:FAMILY", r"cannot be imported: module 'pathlib' has no attribute 'FAMILY'"),
        ("pathlib:Path", r"is a type without describe\(\) and load\(\)"),
    ],
)
def test_an_entry_point_that_is_no_family_says_why(family: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_family(family)
