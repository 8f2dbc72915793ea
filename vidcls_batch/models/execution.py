"""How a member computes: precision, memory layout and compilation, by its config or, where that says auto, its device.

The table and its figures: docs/models.md, decision 27.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vidcls_batch.config import MemberConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.models.base import InputSpec, LoadedNetwork, Network, Scores

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CompileMode = Literal["off", "default", "reduce-overhead"]


@dataclass(frozen=True, slots=True)
class Execution:
    """What `auto` has become."""

    dtype: "torch.dtype"
    channels_last_3d: bool
    compile: CompileMode


def resolve_execution(config: MemberConfig, *, device: str) -> Execution:
    """Settle every `auto`. Raises ConfigError for what the device has not."""
    import torch

    kind = device.partition(":")[0]
    if config.compile == "reduce-overhead" and kind != "cuda":
        raise ConfigError(
            f"members.{config.name}.compile is reduce-overhead: CUDA graphs need a CUDA device, not {device}; "
            "use default or off"
        )
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    # bf16: twice fp16's range at its speed. It pays on CPUs with bf16 units too; nodes of a run may differ in them.
    precision = config.precision if config.precision != "auto" else "bf16" if kind == "cuda" else "fp32"
    return Execution(
        dtype=dtypes[precision],
        channels_last_3d=config.layout == "channels_last_3d",
        # Compiling takes minutes per worker and needs a C++ compiler on every node: only who asks gets it.
        compile="off" if config.compile == "auto" else config.compile,
    )


def prepare_network(
    loaded: LoadedNetwork, execution: Execution, spec: InputSpec | None, *, name: str, device: str
) -> Network:
    """The network in the layout and compilation asked for, compiled before the first clip comes. Raises ConfigError."""
    import torch

    if execution.channels_last_3d:
        if loaded.module is None:
            raise ConfigError(f"members.{name}.layout: this family's network has one layout only; leave layout out")
        # Convolutions give what their weights are in; the pixels need no conversion.
        loaded.module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if execution.compile == "off":
        return loaded.network
    if loaded.module is None or spec is None:
        raise ConfigError(f"members.{name}.compile: this family's network is not compiled here; leave compile out")
    return _compiled(loaded.network, execution, spec, name=name, device=device)


def _compiled(network: Network, execution: Execution, spec: InputSpec, *, name: str, device: str) -> Network:
    import torch

    graphs = execution.compile == "reduce-overhead"
    # Blocks are of any size, the last ones smaller. A CUDA graph is of one size: torch records one for each.
    compiled: Network = torch.compile(network, mode=execution.compile, dynamic=None if graphs else True)

    def run(pixels: "Tensor") -> Scores:
        if not graphs:
            return compiled(pixels)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        scores = compiled(pixels)
        # A CUDA graph writes its next answer into the same memory.
        kept = {part: getattr(scores, part) for part in ("logits", "embeddings", "context", "present")}
        return replace(scores, **{part: value.clone() for part, value in kept.items() if value is not None})

    shape = (spec.sampling.num_frames, 3, spec.height, spec.width)
    try:
        with torch.inference_mode():
            for clips in (2, 1):  # one clip alone is compiled apart
                run(torch.zeros((clips, *shape), dtype=execution.dtype, device=device))
    except Exception as error:  # inductor's own, a compiler's, Triton's: what they have in common is Exception
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"members.{name}.compile is {execution.compile}, but torch.compile failed here: {reason}. It needs a C++ "
            "compiler and Python's headers on every node; leave compile out to run as it is"
        ) from error
    return run
