"""Members exported to one file: equal to where they come from, whatever the batch, the runtime and the process."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
import torch
from contracts.tiny_checkpoints import BUILDERS, LABELS, TinyCheckpoint
from typer.testing import CliRunner

from vidcls_batch.cli import app
from vidcls_batch.config import LabelSetConfig, MemberConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.models import export
from vidcls_batch.models.base import Member
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.export import ExportSource, export_checkpoint
from vidcls_batch.models.exported_facts import ONNX_KEY, read_facts
from vidcls_batch.models.registry import describe_member, load_member

needs_onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs the extra onnx")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
# One of each implementation: a trained head, time attention, two encoders, the prompt generator, convolutions.
FAMILIES = (
    "videomae",
    *(pytest.param(family, marks=pytest.mark.slow) for family in ("xclip", "timesformer", "clip", "x3d_xs")),
)
RUNTIMES = [
    pytest.param("pt2", "exported", id="pt2"),
    pytest.param("onnx", "onnx", id="onnxruntime", marks=needs_onnx),
    pytest.param("onnx", "openvino", id="openvino", marks=[needs_onnx, needs_openvino]),
]

LOAD = """
import sys, torch
from vidcls_batch.config import MemberConfig
from vidcls_batch.models.registry import load_member

file, frames, logits = sys.argv[1:]
member = load_member(MemberConfig(name="m", family="exported", checkpoint=file), labels=(), device="cpu")
torch.save(member.logits(torch.load(frames)), logits)
sys.exit("transformers" in sys.modules)
"""


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
    return BUILDERS["videomae"](tmp_path_factory.mktemp("videomae"))


@pytest.fixture(scope="module")
def pt2(videomae: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pt2") / "tiny.pt2"
    export_checkpoint(ExportSource(checkpoint=str(videomae.path), family="videomae"), file, to="pt2")
    return file


@pytest.fixture(scope="module")
def onnx(videomae: TinyCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_checkpoint(ExportSource(checkpoint=str(videomae.path), family="videomae"), file, to="onnx")
    return file


def original(family: str, tiny: TinyCheckpoint) -> Member:
    labels = LabelSetConfig(labels=LABELS) if tiny.needs_labels else None
    config = MemberConfig(name="m", family=family, checkpoint=str(tiny.path), labels=labels)
    return load_member(config, labels=LABELS, device="cpu")


def frames_for(member: Member, clips: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(clips)
    shape = (clips, member.input.sampling.num_slots, 40, 40, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("to", "family_of_copy"), RUNTIMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_member_scores_the_same_at_every_batch_size(
    family: str, to: Literal["pt2", "onnx"], family_of_copy: str, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    tiny = BUILDERS[family](tmp_path / "source")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS) + "\n")
    given = str(tmp_path / "labels.txt") if tiny.needs_labels or family in ("xclip", "clip") else None
    source = ExportSource(checkpoint=str(tiny.path), family=family, labels=given)
    report = export_checkpoint(source, tmp_path / f"copy.{to}", to=to)
    assert list(report.max_difference) == [1, 2, 3]
    member = original(family, tiny)
    config = MemberConfig(name="m", family=family_of_copy, checkpoint=str(tmp_path / f"copy.{to}"))
    copy = load_member(config, labels=LABELS, device="cpu")
    assert (copy.input, copy.labels) == (member.input, member.labels)
    assert copy.record.num_parameters == member.record.num_parameters
    for clips in (1, 2, 3):
        frames = frames_for(member, clips)
        ours, theirs = copy.score(frames), member.score(frames)
        torch.testing.assert_close(ours.logits, theirs.logits, atol=2e-4, rtol=1e-4)
        assert ours.embeddings is not None
        assert theirs.embeddings is not None
        torch.testing.assert_close(ours.embeddings, theirs.embeddings, atol=2e-4, rtol=1e-4)


def test_a_program_loads_in_a_process_that_never_imports_transformers(
    videomae: TinyCheckpoint, pt2: Path, tmp_path: Path
) -> None:
    member = original("videomae", videomae)
    frames = frames_for(member, 2)
    torch.save(frames, tmp_path / "frames.pt")
    command = [sys.executable, "-c", LOAD, str(pt2), str(tmp_path / "frames.pt"), str(tmp_path / "logits.pt")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), member.logits(frames), atol=1e-5, rtol=0)


@pytest.mark.parametrize("to", ["pt2", pytest.param("onnx", marks=needs_onnx)])
def test_where_the_weights_are_from_and_their_licence_travel_in_the_file(
    videomae: TinyCheckpoint, tmp_path: Path, to: Literal["pt2", "onnx"]
) -> None:
    (videomae.path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    file = tmp_path / f"a.{to}"
    export_checkpoint(ExportSource(checkpoint=str(videomae.path), family="videomae"), file, to=to)
    (videomae.path / "README.md").unlink()
    facts, source = read_facts(Checkpoint(str(file), file, None), suffix=file.suffix)
    assert (source, facts.family, facts.checkpoint) == (file.name, "videomae", str(videomae.path))
    assert facts.weights_sha256 == original("videomae", videomae).record.weights_sha256
    family = {"pt2": "exported", "onnx": "onnx"}[to]
    described = describe_member(MemberConfig(name="m", family=family, checkpoint=str(file)), labels=LABELS)
    assert (described.licence, described.labels, described.embedding_dim) == ("cc-by-nc-4.0", LABELS, 24)


@needs_onnx
def test_onnx_metadata_is_read_as_onnxruntime_reads_it(onnx: Path, tmp_path: Path) -> None:
    import onnxruntime

    facts, _ = read_facts(Checkpoint("a", onnx, None), suffix=".onnx")
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {ONNX_KEY: facts.to_json()}
    file = tmp_path / "short.onnx"
    file.write_bytes(onnx.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cut short"):
        read_facts(Checkpoint("a", file, None), suffix=".onnx")


def test_a_copy_that_scores_differently_is_not_kept(
    videomae: TinyCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, family = export._FORMATS["pt2"]

    def write_another(program: torch.export.ExportedProgram, file: Path, facts: export.ExportedFacts) -> None:
        for value in program.constants.values():  # the network hangs on a function: its weights are constants
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                value.data = value * 1.01
        write(program, file, facts)

    monkeypatch.setitem(export._FORMATS, "pt2", (write_another, family))
    with pytest.raises(CheckpointError, match=r"was not exported: the pt2 copy's logits differ .* batch 3"):
        export_checkpoint(ExportSource(checkpoint=str(videomae.path), family="videomae"), tmp_path / "a.pt2", to="pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_parity(videomae: TinyCheckpoint, tmp_path: Path) -> None:
    command = ["export", str(videomae.path), "--family", "videomae", "--to", "pt2", "-o", str(tmp_path / "a.pt2")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert all(f"parity, batch {clips}: largest difference" in done.output for clips in (1, 2, 3))
    wrong = CliRunner().invoke(app, [*command[:-1], str(tmp_path / "a.onnx"), "--json"])
    assert wrong.exit_code == 2
    assert "must end in .pt2" in wrong.output


def test_a_zero_shot_checkpoint_is_exported_with_labels_only(tmp_path: Path) -> None:
    tiny = BUILDERS["clip"](tmp_path)
    with pytest.raises(ConfigError, match="--labels"):
        export_checkpoint(ExportSource(checkpoint=str(tiny.path), family="clip"), tmp_path / "a.pt2", to="pt2")


def test_a_program_exported_elsewhere_takes_its_facts_from_beside_it(pt2: Path, tmp_path: Path) -> None:
    facts, _ = read_facts(Checkpoint("a", pt2, None), suffix=".pt2")
    torch.export.save(torch.export.load(pt2), tmp_path / "theirs.pt2")
    config = MemberConfig(name="m", family="exported", checkpoint=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"theirs.pt2 was not written by `vidcls export`"):
        describe_member(config, labels=LABELS)
    tree = json.loads(facts.to_json())
    (tmp_path / "member.json").write_text(json.dumps({"input": tree["input"], "labels": tree["labels"]}))
    member = load_member(config, labels=LABELS, device="cpu")
    assert member.labels == LABELS
    assert member.logits(frames_for(member, 1)).shape == (1, 1, 3)
    (tmp_path / "member.json").write_text('{"labels": ["a"], "input": {"short_side": 3}}')
    with pytest.raises(CheckpointError, match="is not understood"):
        describe_member(config, labels=LABELS)


def test_a_folder_without_a_program_and_a_damaged_program_are_refused(pt2: Path, tmp_path: Path) -> None:
    config = MemberConfig(name="m", family="exported", checkpoint=str(tmp_path))
    with pytest.raises(CheckpointError, match="has no weights"):
        describe_member(config, labels=LABELS)
    (tmp_path / "a.pt2").write_bytes(pt2.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_member(config, labels=LABELS, device="cpu")


@needs_onnx
@pytest.mark.parametrize(
    ("family", "device", "message"),
    [
        ("tensorrt", "cpu", "runs on CUDA devices only"),
        ("tensorrt", "cuda", r"no TensorrtExecutionProvider.*pip install onnxruntime-gpu tensorrt"),
        ("onnx", "cuda", r"no CUDAExecutionProvider.*pip install onnxruntime-gpu"),
        pytest.param("openvino", "cuda", "runs on the CPU only", marks=needs_openvino),
    ],
)
def test_a_runtime_that_is_not_there_says_what_to_install(
    family: str, device: str, message: str, onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match=message):
        load_member(MemberConfig(name="m", family=family, checkpoint=str(onnx)), labels=LABELS, device=device)


@needs_onnx
def test_a_precision_that_a_runtime_does_not_have_is_refused(onnx: Path) -> None:
    config = MemberConfig(name="m", family="onnx", checkpoint=str(onnx), precision="bf16")
    with pytest.raises(ConfigError, match=r"precision is bf16, but family onnx computes in float32"):
        load_member(config, labels=LABELS, device="cpu")
