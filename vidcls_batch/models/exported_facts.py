"""What travels inside an exported file beside the network: its input, its labels and where its weights are from."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.checkpoints import Checkpoint

FACTS_FILE = "member.json"  # in a folder beside a network that was exported elsewhere; in a .pt2, its extra file
ONNX_KEY = "vidcls_member"  # in an ONNX model's metadata
# Fields of onnx.proto's ModelProto and StringStringEntryProto.
_METADATA_FIELD, _KEY_FIELD, _VALUE_FIELD = 14, 1, 2
_LENGTH_DELIMITED = 2


@dataclass(frozen=True, slots=True)
class ExportedFacts:
    """A member as its exported file tells it. What was exported elsewhere may leave out all but the first two."""

    input: InputSpec
    labels: tuple[str, ...]
    embedding_dim: int | None = None  # the network's second output, where it has one
    licence: str | None = None  # of the weights it was exported from
    family: str | None = None
    checkpoint: str | None = None
    revision: str | None = None
    weights_sha256: str | None = None
    num_parameters: int | None = None

    def to_json(self) -> str:
        """The facts as one JSON object."""
        return json.dumps(asdict(self), sort_keys=True)


def read_facts(checkpoint: Checkpoint, *, suffix: str) -> tuple[ExportedFacts, str]:
    """The facts in the exported file itself, else in a member.json beside it; and which it was.

    Raises CheckpointError when there are none or they are not understood.
    """
    beside = checkpoint.path / FACTS_FILE
    if beside.is_file():
        return _parse(beside.read_text(encoding="utf-8"), checkpoint, FACTS_FILE), FACTS_FILE
    file = exported_file(checkpoint, suffix=suffix)
    try:
        text = _onnx_metadata(file).get(ONNX_KEY) if suffix == ".onnx" else _pt2_extra(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{checkpoint.name}: {file.name} cannot be read: {error}") from error
    if text is None:
        raise CheckpointError(
            f"{checkpoint.name} does not say what it wants to see: {file.name} was not written by `vidcls export`, and "
            f"no {FACTS_FILE} with its input and labels lies beside it in a folder"
        )
    return _parse(text, checkpoint, file.name), file.name


def exported_file(checkpoint: Checkpoint, *, suffix: str) -> Path:
    """The one network file of the checkpoint. Raises CheckpointError."""
    found = [path for path in checkpoint.weight_files() if path.suffix == suffix]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise CheckpointError(f"{checkpoint.name} must be or hold one {suffix} file; found {names}")
    return found[0]


def _parse(text: str, checkpoint: Checkpoint, source: str) -> ExportedFacts:
    try:
        return TypeAdapter(ExportedFacts).validate_json(text)
    except ValidationError as error:
        raise CheckpointError(f"{checkpoint.name}: {source} is not understood: {error}") from error


def _pt2_extra(file: Path) -> str | None:
    """A .pt2 is a zip; its extra files lie in <name>/extra/."""
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(f"/extra/{FACTS_FILE}"):
                return archive.read(name).decode()
    return None


def _onnx_metadata(file: Path) -> dict[str, str]:
    """The metadata of an ONNX model, past its weights: any runtime's members are described without loading them."""
    found: dict[str, str] = {}
    size = file.stat().st_size
    with file.open("rb") as stream:
        for number, length in _fields(stream, end=size):
            if number != _METADATA_FIELD:
                stream.seek(length, 1)
                continue
            end = stream.tell() + length
            entry = {part: stream.read(count).decode() for part, count in _fields(stream, end=end)}
            found[entry.get(_KEY_FIELD, "")] = entry.get(_VALUE_FIELD, "")
    return found


def _fields(stream: BinaryIO, *, end: int) -> Iterator[tuple[int, int]]:
    """Number and length of each length-delimited protobuf field up to `end`; its bytes are the caller's to consume."""
    while stream.tell() < end:
        tag = _varint(stream)
        if tag & 7 == 0:
            _varint(stream)
        elif tag & 7 == _LENGTH_DELIMITED:
            length = _varint(stream)
            if stream.tell() + length > end:
                raise ValueError("it is cut short, or no ONNX model")
            yield tag >> 3, length
        else:
            raise ValueError("it is no ONNX model")


def _varint(stream: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = stream.read(1)
        if not byte or shift > 63:
            raise ValueError("it is cut short, or no ONNX model")
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
        shift += 7
