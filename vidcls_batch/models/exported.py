"""Members from exported files: `torch.export` programs, and ONNX by ONNX Runtime, OpenVINO or TensorRT.

A file of `vidcls export` holds all that the member wants and gives. One that was exported elsewhere works too: float32
pixels [clips, frames, 3, height, width] in, logits [clips, labels] out, and a member.json beside it in its folder.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.models.base import FamilyDescription, LoadedNetwork, Scores
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.exported_facts import exported_file, read_facts
from vidcls_batch.models.input_spec import resolve_sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Outputs = Callable[["Tensor"], tuple["Tensor", ...]]  # float32 pixels to logits and, where they are there, embeddings
Runtime = Callable[[Path, str, "torch.dtype"], Outputs]  # from a file, a device and a dtype


@dataclass(frozen=True, slots=True)
class ExportedFamily:
    """Files of one kind, run by one runtime."""

    suffix: str
    runtime: Runtime
    any_precision: bool = True  # else it computes in float32, as exported

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """All of it from the file itself, or the member.json beside it."""
        facts, source = read_facts(checkpoint, suffix=self.suffix)
        resolved = resolve_sampling(facts.input.sampling, sampling, fixed_frames=True)
        return FamilyDescription(
            input=replace(facts.input, sampling=resolved),
            preprocessing_from=source,
            zero_shot=False,
            num_outputs=len(facts.labels),
            labels=facts.labels,
            embedding_dim=facts.embedding_dim,
            licence=facts.licence,
        )

    def load(
        self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...], device: str, dtype: "torch.dtype"
    ) -> LoadedNetwork:
        """The file's network on the device."""
        import torch

        path = exported_file(checkpoint, suffix=self.suffix)
        facts, _ = read_facts(checkpoint, suffix=self.suffix)
        try:
            run = self.runtime(path, device, dtype)
        except (ConfigError, CheckpointError):
            raise
        except Exception as error:  # each runtime has exceptions of its own, most of them plain RuntimeErrors
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{checkpoint.name}: {path.name} cannot be loaded: {reason}") from error

        def network(pixels: "Tensor") -> Scores:
            logits, *others = run(pixels.float())
            return Scores(logits=logits, embeddings=others[0] if others else None)

        return LoadedNetwork(
            network=network,
            # A file exported elsewhere does not tell: as many float32 numbers as it has room for.
            num_parameters=facts.num_parameters or path.stat().st_size // 4,
            dtype=dtype if self.any_precision else torch.float32,
        )


def _torch_program(path: Path, device: str, dtype: "torch.dtype") -> Outputs:
    import torch
    from torch.export.passes import move_to_device_pass

    program = torch.export.load(path)
    module = program.module() if device == "cpu" else move_to_device_pass(program, device).module()
    kind = device.partition(":")[0]

    def run(pixels: "Tensor") -> tuple["Tensor", ...]:
        # The program's weights are float32; autocast gives matrix products the dtype the member asks for.
        with torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32):
            outputs = module(pixels)
        return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)

    return run


def _onnxruntime(path: Path, device: str, providers: list[tuple[str, dict[str, object]]]) -> Outputs:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Idle threads that spin would take the cores that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    name = session.get_inputs()[0].name

    def run(pixels: "Tensor") -> tuple["Tensor", ...]:
        outputs = session.run(None, {name: pixels.cpu().numpy()})
        return tuple(torch.from_numpy(output).to(device) for output in outputs)

    return run


def _onnx(path: Path, device: str, dtype: "torch.dtype") -> Outputs:
    provider = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    _require_provider(provider, device=device)
    return _onnxruntime(path, device, [(provider, _device_options(device))])


def _tensorrt(path: Path, device: str, dtype: "torch.dtype") -> Outputs:
    import torch

    if not device.startswith("cuda"):
        raise ConfigError(f"family tensorrt runs on CUDA devices only, not on {device}; use family onnx or openvino")
    _require_provider("TensorrtExecutionProvider", device=device)
    precision = {torch.bfloat16: {"trt_bf16_enable": True}, torch.float16: {"trt_fp16_enable": True}}.get(dtype, {})
    return _onnxruntime(
        path,
        device,
        [
            ("TensorrtExecutionProvider", {**_device_options(device), **precision}),
            ("CUDAExecutionProvider", _device_options(device)),  # for operators that TensorRT has not
        ],
    )


def _openvino(path: Path, device: str, dtype: "torch.dtype") -> Outputs:
    import openvino
    import torch

    if device != "cpu":
        raise ConfigError(f"family openvino runs on the CPU only, not on {device}; use family exported or onnx")
    precision = {torch.bfloat16: "bf16", torch.float16: "f16"}.get(dtype, "f32")
    compiled = openvino.Core().compile_model(
        str(path),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        },
    )

    def run(pixels: "Tensor") -> tuple["Tensor", ...]:
        outputs = compiled(pixels.numpy())
        # The runtime writes its next answer into the same memory.
        return tuple(torch.from_numpy(outputs[output].copy()) for output in compiled.outputs)

    return run


def _require_provider(provider: str, *, device: str) -> None:
    import onnxruntime

    here = onnxruntime.get_available_providers()
    if provider not in here:
        needs = (
            "a GPU build with NVIDIA's TensorRT: pip install onnxruntime-gpu tensorrt"
            if provider.startswith("Tensorrt")
            else "its GPU build: pip install onnxruntime-gpu"
        )
        raise ConfigError(
            f"The installed onnxruntime has no {provider}, which {device} needs here (it has {', '.join(here)}). "
            f"Instead of the extra's onnxruntime install {needs}"
        )


def _device_options(device: str) -> dict[str, object]:
    return {"device_id": int(device.partition(":")[2] or 0)} if device.startswith("cuda") else {}


EXPORTED = ExportedFamily(suffix=".pt2", runtime=_torch_program)
ONNX = ExportedFamily(suffix=".onnx", runtime=_onnx, any_precision=False)
OPENVINO = ExportedFamily(suffix=".onnx", runtime=_openvino)
TENSORRT = ExportedFamily(suffix=".onnx", runtime=_tensorrt)
