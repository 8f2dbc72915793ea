"""How members compute: what auto becomes, and that layout and compilation change no label."""

from pathlib import Path

import pytest
import torch
from contracts.tiny_checkpoints import BUILDERS, LABELS
from pydantic import ValidationError

from vidcls_batch.config import LabelSetConfig, MemberConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.models.base import Member
from vidcls_batch.models.execution import resolve_execution
from vidcls_batch.models.registry import load_member

SMALL = """
import torch
from vidcls_batch.models.recipes import square
from vidcls_batch.models.state_dict import StateDictFamily
from vidcls_batch.models.base import Scores
from vidcls_batch.types import Sampling

class MeanColour(torch.nn.Linear):
    def forward(self, pixels):
        return Scores(logits=super().forward(pixels.tanh().mean(dim=(1, 3, 4))))

FAMILY = StateDictFamily(build=lambda k: MeanColour(3, k), head_weight="weight", sampling=Sampling(4),
    recipe=lambda s: square(s, 16, mean=(0., 0., 0.), std=(1., 1., 1.)), embedding_dim=None)
"""


def member(family: str, folder: Path, **settings: object) -> Member:
    folder.mkdir(exist_ok=True)
    tiny = BUILDERS[family](folder)
    config = MemberConfig(
        name="m",
        family=family,
        checkpoint=str(tiny.path),
        labels=LabelSetConfig(labels=LABELS) if tiny.needs_labels else None,
        **settings,
    )
    return load_member(config, labels=LABELS, device="cpu")


def frames_for(m: Member, clips: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(clips)
    shape = (clips, m.input.sampling.num_slots, 40, 40, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("device", "settings", "expected"),
    [
        ("cpu", {}, (torch.float32, False, "off")),
        ("cuda:1", {}, (torch.bfloat16, False, "off")),
        ("cpu", {"precision": "bf16", "compile": "default"}, (torch.bfloat16, False, "default")),
        ("cuda", {"precision": "fp16", "layout": "channels_last_3d"}, (torch.float16, True, "off")),
        ("cuda", {"compile": "reduce-overhead"}, (torch.bfloat16, False, "reduce-overhead")),
    ],
)
def test_auto_becomes_what_the_table_says(
    device: str, settings: dict[str, str], expected: tuple[torch.dtype, bool, str]
) -> None:
    config = MemberConfig(name="m", family="videomae", checkpoint="x", **settings)
    found = resolve_execution(config, device=device)
    assert (found.dtype, found.channels_last_3d, found.compile) == expected


def test_cuda_graphs_are_refused_on_the_cpu() -> None:
    config = MemberConfig(name="m", family="videomae", checkpoint="x", compile="reduce-overhead")
    with pytest.raises(ConfigError, match=r"members.m.compile is reduce-overhead: CUDA graphs need a CUDA device"):
        resolve_execution(config, device="cpu")
    with pytest.raises(ValidationError):
        MemberConfig(name="m", family="videomae", checkpoint="x", compile="fast")


def test_channels_last_3d_changes_the_memory_not_the_logits(tmp_path: Path) -> None:
    plain = member("x3d_xs", tmp_path / "a")
    other = member("x3d_xs", tmp_path / "b", layout="channels_last_3d")
    convolutions = [m for m in other.network.modules() if isinstance(m, torch.nn.Conv3d)]
    assert all(c.weight.is_contiguous(memory_format=torch.channels_last_3d) for c in convolutions)
    for clips in (1, 2):
        frames = frames_for(plain, clips)
        torch.testing.assert_close(other.logits(frames), plain.logits(frames), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["videomae", "x3d_xs"])
def test_bf16_on_the_cpu_stays_near_fp32(family: str, tmp_path: Path) -> None:
    plain, half = member(family, tmp_path / "a"), member(family, tmp_path / "b", precision="bf16")
    frames = frames_for(plain, 2)
    logits = half.logits(frames)
    assert logits.dtype == torch.float32
    spread = plain.logits(frames).std()
    torch.testing.assert_close(logits, plain.logits(frames), atol=float(0.1 * spread), rtol=0.1)


def test_layout_and_compile_are_refused_where_a_runtime_decides(tmp_path: Path) -> None:
    for settings in ({"layout": "channels_last_3d"}, {"compile": "default"}):
        with pytest.raises(ConfigError, match=rf"members.m.{next(iter(settings))}: this family's network"):
            member("exported", tmp_path / next(iter(settings)), **settings)


def test_a_failing_compiler_stops_the_run_before_its_first_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_without_compiler(*_: object, **__: object) -> object:
        def run(_: torch.Tensor) -> object:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

        return run

    monkeypatch.setattr(torch, "compile", compile_without_compiler)
    with pytest.raises(ConfigError, match=r"torch.compile failed here: InvalidCxxCompiler.*leave compile out"):
        member("videomae", tmp_path / "a", compile="default")


@pytest.mark.slow
def test_a_compiled_member_scores_the_same_at_every_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small_network.py").write_text(SMALL)  # a real family's takes minutes
    monkeypatch.syspath_prepend(tmp_path)
    torch.save({"weight": torch.randn(3, 3), "bias": torch.zeros(3)}, tmp_path / "weights.pth")
    plain, compiled = (
        load_member(
            MemberConfig(
                name="m",
                family="small_network:FAMILY",
                checkpoint=str(tmp_path / "weights.pth"),
                labels=LabelSetConfig(labels=LABELS),
                compile=compile_,
            ),
            labels=LABELS,
            device="cpu",
        )
        for compile_ in ("off", "default")
    )
    for clips in (1, 2, 3, 5):
        frames = frames_for(plain, clips)
        torch.testing.assert_close(compiled.logits(frames), plain.logits(frames), atol=1e-4, rtol=1e-4)
