"""Families that transformers offers as `…ForVideoClassification`: a backbone and a linear `classifier` on top."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import FamilyDescription, InputSpec, LoadedNetwork, Scores
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.input_spec import read_input_spec, resolve_sampling
from vidcls_batch.models.pretrained import load_pretrained
from vidcls_batch.types import Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TransformersVideoFamily:
    """One such family: which class, where its config keeps its sizes, and what its authors published."""

    model_type: str  # in config.json
    model_class: str
    frames_key: str
    default_frames: int
    size_key: str
    default_size: int
    sampling: Callable[[int], Sampling]  # from the number of frames
    recipe: Callable[[Sampling, int], InputSpec]  # from the sampling and the image size
    default_width: int = 768  # hidden size, the embedding's length
    unused: str | None = None  # dotted name of a part that classification does not run

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """Sizes and labels from config.json, preprocessing from the processor's file."""
        config = read_config(checkpoint, model_types=(self.model_type,))
        frames = read_size(config, self.frames_key, self.default_frames)
        resolved = resolve_sampling(self.sampling(frames), sampling, fixed_frames=True)
        recipe = self.recipe(resolved, read_size(config, self.size_key, self.default_size))
        spec, source = read_input_spec(checkpoint, recipe=recipe)
        count, labels = read_labels(config)
        return FamilyDescription(
            input=spec,
            preprocessing_from=source,
            zero_shot=False,
            num_outputs=count,
            labels=labels,
            embedding_dim=read_size(config, "hidden_size", self.default_width),
        )

    def load(
        self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...], device: str, dtype: "torch.dtype"
    ) -> LoadedNetwork:
        """The whole model; `texts` is empty, the head is trained."""
        import torch

        model = load_pretrained(checkpoint, model_class=self.model_class)
        num_parameters = sum(p.numel() for p in model.parameters())
        if self.unused is not None:
            owner, _, name = self.unused.rpartition(".")
            delattr(model.get_submodule(owner), name)
        model = model.to(device=device, dtype=dtype)
        head = cast("nn.Module", model.classifier)
        model.classifier = torch.nn.Identity()  # the model now gives what its head would see: the embedding

        def network(pixels: "Tensor") -> Scores:
            embeddings = model(pixels).logits.flatten(1)  # VideoPrism's have an axis of one query
            return Scores(logits=head(embeddings), embeddings=embeddings)

        return LoadedNetwork(network=network, num_parameters=num_parameters, module=model)


def read_config(checkpoint: Checkpoint, *, model_types: tuple[str, ...]) -> dict[str, object]:
    """The folder's config.json. Raises CheckpointError when there is none or it is another model's."""
    config = checkpoint.read_json("config.json")
    if config is None:
        raise CheckpointError(
            f"{checkpoint.name} has no config.json in {checkpoint.path}; expected a folder written by save_pretrained"
        )
    if config.get("model_type") not in model_types:
        needed = " or ".join(repr(t) for t in model_types)
        raise CheckpointError(
            f"{checkpoint.name} is a {config.get('model_type')!r} model, but its member's family needs {needed}; "
            "change the member's family, see `vidcls models`"
        )
    return config


def read_labels(config: Mapping[str, object]) -> tuple[int, tuple[str, ...] | None]:
    """How many outputs the head has, and their names in order; None where they are transformers' `LABEL_0` fillers."""
    id2label = config.get("id2label")
    if not isinstance(id2label, dict) or not id2label:
        count = config.get("num_labels", 2)  # transformers leaves its default of 2 out of the file
        return (count if isinstance(count, int) else 2), None
    names = {int(k): str(v) for k, v in id2label.items()}
    if sorted(names) != list(range(len(names))):
        raise CheckpointError(f"config.json: id2label has the ids {sorted(names)[:5]}…, expected 0 to {len(names) - 1}")
    labels = tuple(names[i] for i in range(len(names)))
    return len(labels), None if labels == tuple(f"LABEL_{i}" for i in range(len(labels))) else labels


def read_size(config: Mapping[str, object], key: str, default: int) -> int:
    """A positive number of config.json, or of a list of equal ones; `default` is transformers' own. CheckpointError."""
    value = config.get(key, default)
    if isinstance(value, list) and len(set(value)) == 1:
        value = value[0]
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"config.json: {key} is {value!r}, expected a positive number")
    return value
