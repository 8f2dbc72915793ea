"""Families of our own modules, whose checkpoints are plain state dicts: `.pyth`, `.pth`, `.pt` or safetensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, cast

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.models.base import FamilyDescription, InputSpec, LoadedNetwork, Network, Scores, Sound
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.input_spec import read_input_spec, resolve_sampling
from vidcls_batch.models.log_mel import LogMelInput
from vidcls_batch.models.pretrained import describe_key_problems
from vidcls_batch.models.transformers_video import read_labels
from vidcls_batch.types import Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# Where published files keep the weights, outermost first; a plain state dict has none of these.
_WRAPPERS = ("model_state", "state_dict", "model")
# Counters of training that no forward pass reads; old files lack them.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class StateDictFamily:
    """One network: how to build it for a number of labels, and its published input."""

    build: "Callable[[int], nn.Module]"  # from the number of labels
    head_weight: str  # the key whose first axis is the number of labels
    sampling: Sampling
    recipe: Callable[[Sampling], InputSpec]
    embedding_dim: int | None
    fixed_frames: bool = True
    min_frames: int = 1
    any_size: bool = True
    # From the loaded module to what scores pixels; None: the module gives Scores itself.
    adapt: "Callable[[nn.Module], Network] | None" = None
    heard: LogMelInput | None = None  # of a module that takes pixels, log-mel and whether there is sound

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """The published input; labels only where a config.json lies beside the weights."""
        resolved = resolve_sampling(self.sampling, sampling, fixed_frames=self.fixed_frames)
        if resolved.num_frames < self.min_frames:
            raise ConfigError(
                f"sampling.num_frames is {resolved.num_frames}, but this family needs at least {self.min_frames}"
            )
        spec, source = read_input_spec(checkpoint, recipe=self.recipe(resolved), any_size=self.any_size)
        config = checkpoint.read_json("config.json")
        count, labels = (None, None) if config is None else read_labels(config)
        return FamilyDescription(
            input=spec,
            preprocessing_from=source,
            zero_shot=False,
            num_outputs=count,
            labels=labels,
            embedding_dim=self.embedding_dim,
            sound=None if self.heard is None else self.heard.window,
        )

    def load(
        self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...], device: str, dtype: "torch.dtype"
    ) -> LoadedNetwork:
        """The network with as many outputs as its weights have."""
        state = read_state_dict(checkpoint)
        head = state.get(self.head_weight)
        if head is None:
            raise CheckpointError(
                f"{checkpoint.name} has no {self.head_weight}: it is another network's, or has no head. "
                f"Its keys begin with {', '.join(list(state)[:4])}"
            )
        network = self.build(len(head))
        load_strictly(network, state, name=checkpoint.name)
        network.eval().requires_grad_(False).to(device=device, dtype=dtype)
        num_parameters = sum(p.numel() for p in network.parameters())
        if self.heard is not None:
            scores: Network = _hearing(network, self.heard, dtype=dtype)
        else:
            scores = network if self.adapt is None else self.adapt(network)
        return LoadedNetwork(
            network=scores,
            num_parameters=num_parameters,
            num_outputs=len(head),
            module=network,
        )


def _hearing(network: "nn.Module", heard: LogMelInput, *, dtype: "torch.dtype") -> Network:
    def score(pixels: "Tensor", sound: Sound) -> Scores:
        found: Scores = network(pixels, heard.features(sound).to(dtype), sound.lengths > 0)
        return found

    return score


def read_state_dict(checkpoint: Checkpoint) -> "dict[str, Tensor]":
    """The weights on the CPU, out of their wrapper. Raises CheckpointError."""
    files = checkpoint.weight_files()
    if len(files) > 1:
        raise CheckpointError(
            f"{checkpoint.name} has {len(files)} weight files; give the path of one: {files[0].name}, …"
        )
    loaded = _read_safetensors(files[0]) if files[0].suffix == ".safetensors" else _read_pickle(files[0])
    for wrapper in _WRAPPERS:
        inner = loaded.get(wrapper)
        if isinstance(inner, Mapping):
            loaded = dict(inner)
    import torch

    state = {key.removeprefix("module."): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise CheckpointError(f"{checkpoint.name}: {files[0].name} holds no tensors; its keys are {list(loaded)[:5]}")
    return state


def load_strictly(network: "nn.Module", state: "Mapping[str, Tensor]", *, name: str) -> None:
    """Fill the network with exactly these weights. Raises CheckpointError that names the keys at fault."""
    wanted = network.state_dict()
    shared = [key for key in wanted if key in state]
    problems = {
        "missing": sorted(key for key in wanted if key not in state and not key.endswith(_COUNTER)),
        "unexpected": sorted(key for key in state if key not in wanted and not key.endswith(_COUNTER)),
        "of another shape": sorted(
            f"{key} {list(state[key].shape)} for {list(wanted[key].shape)}"
            for key in shared
            if state[key].shape != wanted[key].shape
        ),
    }
    if any(problems.values()):
        raise CheckpointError(f"{name} does not fit {type(network).__name__}: {describe_key_problems(problems)}")
    network.load_state_dict({key: state[key] for key in shared}, strict=False)


def _read_pickle(path: Path) -> dict[str, object]:
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__  # torch's go on for pages
        raise CheckpointError(f"{path.name} cannot be read as weights: {reason}") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path.name} holds {type(loaded).__name__}, expected a dictionary of weights")
    return cast(dict[str, object], loaded)


def _read_safetensors(path: Path) -> dict[str, object]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return cast(dict[str, object], load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path.name} cannot be read as weights: {error}") from error
