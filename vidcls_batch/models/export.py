"""`vidcls export`: a member as one file that scores without its family's code, proven equal before it is kept."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vidcls_batch.config import LabelSetConfig, MemberConfig, SamplingConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.label_sets import load_label_set
from vidcls_batch.models.base import Network
from vidcls_batch.models.checkpoints import Checkpoint, CheckpointAccess
from vidcls_batch.models.exported import EXPORTED, ONNX, ExportedFamily
from vidcls_batch.models.exported_facts import FACTS_FILE, ONNX_KEY, ExportedFacts
from vidcls_batch.models.member import LoadedMember
from vidcls_batch.models.registry import describe_member, family_facts, load_member, require_modules

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.export import ExportedProgram

Format = Literal["pt2", "onnx"]
BATCHES = (1, 2, 3)
# Of the largest logit (at least 1): float32 sums in another order differ by less, a wrong operator by far more.
TOLERANCE = 1e-4
OPSET = 20
LARGEST_ONNX_BYTES = 2_000_000_000  # protobuf's limit of one file


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written, and the largest difference of its logits from the member's for each size of batch."""

    file: str
    format: Format
    family: str
    num_labels: int
    num_bytes: int
    max_difference: dict[int, float]
    allowed: float

    def __str__(self) -> str:
        lines = [f"{self.file}: {self.family}, {self.num_labels} labels, {self.num_bytes / 1e6:,.1f} MB"]
        lines += [
            f"parity, batch {clips}: largest difference of a logit {difference:.2e} (allowed {self.allowed:.0e})"
            for clips, difference in self.max_difference.items()
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ExportSource:
    """What to export. `labels` and `prompts`: the name or the file of a set."""

    checkpoint: str
    family: str
    labels: str | None = None
    prompts: str | None = None
    revision: str | None = None
    num_frames: int | None = None


def export_checkpoint(
    source: ExportSource, file: Path, *, to: Format, access: CheckpointAccess | None = None
) -> ExportReport:
    """Write a checkpoint's member to `file`, from the CPU in fp32; labels and prompts are baked into a zero-shot one.

    Raises ConfigError or CheckpointError; nothing is left at `file` then, also when the copy's logits differ.
    """
    config = MemberConfig(
        name="exported",
        family=source.family,
        checkpoint=source.checkpoint,
        revision=source.revision,
        prompts=source.prompts,
        sampling=SamplingConfig(num_frames=source.num_frames),
        precision="fp32",
    )
    run_labels: tuple[str, ...] = ()
    label_set = None if source.labels is None else _label_set(source.labels)
    if family_facts(source.family).zero_shot:
        if label_set is None:
            raise ConfigError(f"{source.family} is zero-shot: name the labels it shall score with --labels")
        run_labels = load_label_set(label_set).labels
    else:
        config = config.model_copy(update={"labels": label_set})
    description = describe_member(config, labels=run_labels, access=access)
    if description.input is None or description.sound is not None:
        raise ConfigError(f"{source.family} hears; only what sees frames and nothing else can be exported")
    member = load_member(config, labels=run_labels, device="cpu", access=access)
    facts = ExportedFacts(
        input=description.input,
        labels=member.labels,
        embedding_dim=description.embedding_dim,
        licence=member.record.licence,
        family=config.family,
        checkpoint=config.checkpoint,
        revision=member.record.revision,
        weights_sha256=member.record.weights_sha256,
        num_parameters=member.record.num_parameters,
    )
    return export_member(member, file, to=to, facts=facts)


def export_member(member: LoadedMember, file: Path, *, to: Format, facts: ExportedFacts) -> ExportReport:
    """Write a loaded float32 CPU member to `file`, after comparing the copy with it. Raises CheckpointError."""
    writer, family = _FORMATS[to]
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".partial-{file.name}")
    if partial.suffix != f".{to}":
        raise ConfigError(f"{file.name}: the name of a file exported to {to} must end in .{to}")
    try:
        with _quiet_exporters():
            writer(_trace(member, with_embeddings=facts.embedding_dim is not None), partial, facts)
        copy = family.load(Checkpoint(str(file), partial, None), texts=(), device="cpu", dtype=member.dtype).network
        differences = {clips: _difference(member, copy, clips=clips) for clips in BATCHES}
        allowed = TOLERANCE * max(1.0, float(member.network(_pixels(member, clips=2)).logits.abs().max()))
        # `not <=`: a copy that gives NaN has no difference that could be too large.
        if not max(differences.values()) <= allowed:
            found = ", ".join(f"batch {clips}: {d:.2e}" for clips, d in differences.items())
            raise CheckpointError(
                f"{member.name} was not exported: the {to} copy's logits differ from the member's by more than "
                f"{allowed:.0e} ({found})"
            )
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return ExportReport(
        file=str(file),
        format=to,
        family=facts.family or member.name,
        num_labels=len(facts.labels),
        num_bytes=file.stat().st_size,
        max_difference=differences,
        allowed=allowed,
    )


def _trace(member: LoadedMember, *, with_embeddings: bool) -> "ExportedProgram":
    """The network as a program of any batch size; its own modules are found through the function."""
    import torch

    class Outputs(torch.nn.Module):
        def forward(self, pixels: "Tensor") -> "tuple[Tensor, ...]":
            scores = member.network(pixels)
            if with_embeddings and scores.embeddings is not None:
                return scores.logits, scores.embeddings
            return (scores.logits,)

    batch = torch.export.Dim("clips", min=1, max=1 << 16)
    try:
        with torch.no_grad():
            # Two clips: a batch of one would be baked in as a constant.
            return torch.export.export(
                Outputs(), (_pixels(member, clips=2),), dynamic_shapes={"pixels": {0: batch}}, strict=False
            )
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise CheckpointError(f"{member.name} cannot be exported: {_first_words(error)}") from error


def _write_pt2(program: "ExportedProgram", file: Path, facts: ExportedFacts) -> None:
    import torch

    torch.export.save(program, file, extra_files={FACTS_FILE: facts.to_json()})


def _write_onnx(program: "ExportedProgram", file: Path, facts: ExportedFacts) -> None:
    require_modules("to onnx", needs=("onnx", "onnxscript", "onnxruntime"), extra="onnx")
    import torch

    weights = [*program.state_dict.values(), *program.constants.values()]
    num_bytes = sum(t.numel() * t.element_size() for t in weights if isinstance(t, torch.Tensor))
    if num_bytes > LARGEST_ONNX_BYTES:
        raise CheckpointError(f"its weights take {num_bytes / 1e9:.1f} GB, an ONNX file holds 2; export to pt2")
    names = ["logits", "embeddings"] if facts.embedding_dim is not None else ["logits"]
    try:
        written = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=["pixels"], output_names=names, verbose=False
        )
    except Exception as error:  # the exporter's own errors derive from Exception alone
        raise CheckpointError(f"it cannot be written as ONNX: {_first_words(error)}") from error
    assert written is not None
    written.model.metadata_props[ONNX_KEY] = facts.to_json()
    written.save(str(file), external_data=False)


_FORMATS: dict[Format, tuple[Callable[["ExportedProgram", Path, ExportedFacts], None], ExportedFamily]] = {
    "pt2": (_write_pt2, EXPORTED),
    "onnx": (_write_onnx, ONNX),
}


def _pixels(member: LoadedMember, *, clips: int) -> "torch.Tensor":
    import torch

    spec = member.input
    assert spec is not None  # export_checkpoint refuses members that only listen
    shape = (clips, spec.sampling.num_frames, 3, spec.height, spec.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(clips))


def _difference(member: LoadedMember, copy: Network, *, clips: int) -> float:
    import torch

    with torch.inference_mode():
        pixels = _pixels(member, clips=clips)
        return float((copy(pixels).logits - member.network(pixels).logits).abs().max())


def _label_set(given: str) -> LabelSetConfig:
    return LabelSetConfig(file=given) if Path(given).suffix or Path(given).is_file() else LabelSetConfig(name=given)


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _quiet_exporters() -> Iterator[None]:
    # They warn of torchvision's absence and of their own internals; what matters is the comparison afterwards.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
