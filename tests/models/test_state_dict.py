from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidcls_batch.config import LabelSetConfig, MemberConfig, SamplingConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.registry import describe_member, load_member, open_family
from vidcls_batch.models.torchvision_zoo import S3D

LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return open_family("x3d_xs").build(len(LABELS)).state_dict()


def load(path: Path, *, labels: tuple[str, ...] = LABELS) -> object:
    config = MemberConfig(name="m", family="x3d_xs", checkpoint=str(path), labels=LabelSetConfig(labels=labels))
    return load_member(config, labels=labels, device="cpu")


@pytest.mark.parametrize("form", ["model_state", "state_dict", "plain", "data parallel", "safetensors"])
def test_weights_load_from_every_form_they_are_published_in(
    form: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pyth")
    if form == "safetensors":
        save_file(state, path)
    else:
        saved = {f"module.{k}": v for k, v in state.items()} if form == "data parallel" else state
        torch.save({form: saved, "epoch": 3} if form in ("model_state", "state_dict") else saved, path)
    member = load(path)
    assert torch.equal(member.network.state_dict()["blocks.5.proj.weight"], state["blocks.5.proj.weight"])


def test_a_head_of_another_size_than_the_labels_is_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"members\.m\.labels has 2 names, but the head of .* has 3 outputs"):
        load(tmp_path / "weights.pth", labels=("a", "b"))


def test_without_labels_the_config_is_asked_for_them(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    config = MemberConfig(name="m", family="x3d_xs", checkpoint=str(tmp_path / "weights.pth"))
    with pytest.raises(CheckpointError, match=r"does not name its head's outputs; give .* members\.m\.labels"):
        describe_member(config, labels=LABELS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.5.proj.weight": None}, "has no blocks.5.proj.weight: it is another network's"),
        ({"blocks.5.proj.bias": None}, r"1 key missing \(blocks.5.proj.bias\)"),
        ({"extra.weight": torch.zeros(1)}, r"1 key unexpected \(extra.weight\)"),
        ({"blocks.0.norm.bias": torch.zeros(3)}, r"of another shape \(blocks.0.norm.bias \[3\] for \[24\]\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_the_names_of_their_keys(
    change: dict[str, torch.Tensor | None], message: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    changed = {k: v for k, v in (state | change).items() if v is not None}
    torch.save(changed, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "weights.pth")


def test_old_files_without_batch_counters_load(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, tmp_path / "weights.pth")
    load(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_a_checkpoint_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        load(tmp_path / "weights.pth")


def test_a_file_that_holds_something_else_is_a_checkpoint_error(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds list, expected a dictionary"):
        load(tmp_path / "weights.pth")
    torch.save({"epoch": 3}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load(tmp_path / "weights.pth")


def test_too_few_frames_are_refused_where_the_network_needs_more() -> None:
    checkpoint = Checkpoint(name="s3d", path=Path("s3d.pth"), revision=None)
    with pytest.raises(ConfigError, match="needs at least 14"):
        S3D.describe(checkpoint, SamplingConfig(num_frames=8))
