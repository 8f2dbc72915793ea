"""The folder a training job reads its model from and writes it to, in the form of `save_pretrained`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vidcls_batch.training.config import InputConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the folder's README says of the weights."""

    title: str
    licence: str
    trained_on: str
    accuracy: str
    command: str | None


def save_checkpoint(
    model: "PreTrainedModel",
    folder: str | Path,
    *,
    tokenizer: "PreTrainedTokenizerBase | None",
    half_precision: bool,
    card: ModelCard | None,
) -> None:
    """Write config.json, model.safetensors, the tokenizer and the card; `half_precision` stores float16.

    config.json names float32 either way, so transformers loads and computes in float32.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    dtype = torch.float16 if half_precision else torch.float32
    weights = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it readable for its owner alone
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if card is not None:
        (folder / "README.md").write_text(_card_text(card), encoding="utf-8")


def write_preprocessing(folder: str | Path, *, given: InputConfig) -> None:
    """preprocessor_config.json: scale the shorter side, crop the centre, normalise."""
    tree = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": given.size},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": given.size, "width": given.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(given.mean),
        "image_std": list(given.std),
    }
    Path(folder, "preprocessor_config.json").write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")


def _card_text(card: ModelCard) -> str:
    rebuild = f"\nRebuilt by:\n\n```\n{card.command}\n```\n" if card.command else ""
    return f"---\nlicense: {card.licence}\n---\n\n# {card.title}\n\n{card.trained_on}\n\n{card.accuracy}\n{rebuild}"
