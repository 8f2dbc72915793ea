"""Members as `torch.export` programs: any family written to a folder that loads without the family's own code.

The folder holds `network.pt2` and `member.json`: what the network wants to see and the names of its outputs. For a
zero-shot family the label set is baked in.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import FamilyDescription, InputSpec, LoadedNetwork, Network, Scores
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.input_spec import resolve_sampling
from vidcls_batch.models.member import LoadedMember

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NETWORK_FILE = "network.pt2"
MEMBER_FILE = "member.json"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, and the largest difference of its logits from the member's over batches of 1, 2 and 3."""

    folder: Path
    max_difference: float


def export_member(member: LoadedMember, folder: Path) -> ExportReport:
    """Write a float32 CPU member as a program of any batch size. Raises CheckpointError when it cannot be traced."""
    import torch

    if member.device != "cpu" or member.dtype != torch.float32:
        raise CheckpointError(f"{member.name} is on {member.device} in {member.dtype}; export it from the CPU in fp32")
    spec = member.input
    shape = (spec.sampling.num_frames, 3, spec.height, spec.width)
    # Two clips: a batch of one would be baked in as a constant.
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("clips", min=1, max=1 << 16)
    try:
        with torch.no_grad():
            program = torch.export.export(_as_module(member.network), (example,), dynamic_shapes={"pixels": {0: batch}})
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{member.name} cannot be exported: {reason}") from error
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, folder / NETWORK_FILE)
    facts = {"input": asdict(spec), "labels": list(member.labels)}
    (folder / MEMBER_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return ExportReport(folder=folder, max_difference=_largest_difference(member, folder, shape))


def _largest_difference(member: LoadedMember, folder: Path, shape: tuple[int, ...]) -> float:
    import torch

    network = torch.export.load(folder / NETWORK_FILE).module()
    worst = 0.0
    with torch.inference_mode():
        for clips in (1, 2, 3):
            pixels = torch.randn(clips, *shape, generator=torch.Generator().manual_seed(clips))
            worst = max(worst, float((network(pixels) - member.network(pixels).logits).abs().max()))
    return worst


def _as_module(network: Network) -> "torch.nn.Module":
    """torch.export takes modules only; the network's own modules are found through the function."""
    import torch

    class Logits(torch.nn.Module):
        def forward(self, pixels: "Tensor") -> "Tensor":
            return network(pixels).logits

    return Logits()


@dataclass(frozen=True, slots=True)
class ExportedFamily:
    """Programs that `export_member` wrote, or anyone who keeps to the two files."""

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """All of it from member.json."""
        facts = checkpoint.read_json(MEMBER_FILE)
        if facts is None:
            raise CheckpointError(f"{checkpoint.name} has no {MEMBER_FILE}; write the folder with export_member")
        try:
            spec = TypeAdapter(InputSpec).validate_python(facts.get("input"))
            labels = TypeAdapter(tuple[str, ...]).validate_python(facts.get("labels"))
        except ValidationError as error:
            raise CheckpointError(f"{checkpoint.name}: {MEMBER_FILE} is not understood: {error}") from error
        resolved = resolve_sampling(spec.sampling, sampling, fixed_frames=True)
        return FamilyDescription(
            input=replace(spec, sampling=resolved),
            preprocessing_from=MEMBER_FILE,
            zero_shot=False,
            num_outputs=len(labels),
            labels=labels,
            embedding_dim=None,
        )

    def load(
        self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...], device: str, dtype: "torch.dtype"
    ) -> LoadedNetwork:
        """The program, moved to the device; it computes in float32, as it was written."""
        import torch
        from torch.export.passes import move_to_device_pass

        path = checkpoint.path / NETWORK_FILE
        try:
            program = torch.export.load(path)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{checkpoint.name}: {NETWORK_FILE} cannot be loaded: {error}") from error
        num_parameters = sum(
            t.numel() for t in {**program.state_dict, **program.constants}.values() if hasattr(t, "numel")
        )
        module = program.module() if device == "cpu" else move_to_device_pass(program, device).module()

        def network(pixels: "Tensor") -> Scores:
            return Scores(logits=module(pixels.float()))

        return LoadedNetwork(network=network, num_parameters=num_parameters)


FAMILY = ExportedFamily()
