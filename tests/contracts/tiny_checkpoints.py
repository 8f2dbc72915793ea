"""Tiny randomly initialised checkpoints, one builder per registered family, each with its reference's logits."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

LABELS = ("riding bike", "surfing water", "abseiling")
SIZE = 32


@dataclass(frozen=True)
class TinyCheckpoint:
    """A saved checkpoint and what its own library says of normalised pixels [N, T, 3, H, W] (and of label texts)."""

    path: Path
    num_frames: int
    reference: Callable[[Tensor, Sequence[str]], Tensor]
    needs_labels: bool = False  # the head's outputs have no names in the checkpoint
    tolerance: float = 1e-5


def save_processor(folder: Path, **changes: object) -> None:
    """A preprocessor_config.json in the form of the published VideoMAE checkpoints, at the tiny size."""
    facts = {
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_center_crop": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "VideoMAEImageProcessor",
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": SIZE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(facts | changes))


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that every part of the network shows in the logits; the same each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def classifier_checkpoint(folder: Path, model: torch.nn.Module, *, num_frames: int) -> TinyCheckpoint:
    """Save a transformers model with a trained head; its own forward pass is the reference."""
    randomise(model).save_pretrained(folder)
    save_processor(folder)
    return TinyCheckpoint(folder, num_frames, lambda pixels, _: model(pixels).logits)


def names() -> dict[str, object]:
    return {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}


def videomae(folder: Path) -> TinyCheckpoint:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    config = VideoMAEConfig(
        image_size=SIZE,
        patch_size=16,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        **names(),
    )
    return classifier_checkpoint(folder, VideoMAEForVideoClassification(config), num_frames=4)


def timesformer(folder: Path) -> TinyCheckpoint:
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    config = TimesformerConfig(
        image_size=SIZE,
        patch_size=16,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        **names(),
    )
    return classifier_checkpoint(folder, TimesformerForVideoClassification(config), num_frames=4)


def save_byte_tokenizer(folder: Path, *, max_length: int) -> int:
    """A CLIP tokenizer with a token per byte and no merges; gives the number of tokens."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    CLIPTokenizerFast(vocab=vocabulary, merges=[], model_max_length=max_length).save_pretrained(folder)
    return len(tokens)


def xclip(folder: Path) -> TinyCheckpoint:
    from transformers import AutoTokenizer, XCLIPConfig, XCLIPModel

    vocabulary = save_byte_tokenizer(folder, max_length=40)
    config = XCLIPConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 40,
        },
        vision_config={
            "image_size": SIZE,
            "patch_size": 16,
            "num_frames": 4,
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mit_hidden_size": 16,
            "mit_intermediate_size": 32,
            "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 2,
        },
        projection_dim=16,
        prompt_layers=2,
        prompt_num_attention_heads=2,
    )
    model = randomise(XCLIPModel(config))
    with torch.no_grad():
        # Published checkpoints start at 0.1, where a wrong prompt path would hardly show.
        model.prompts_generator.alpha.fill_(1.0)
        model.logit_scale.fill_(2.0)
    model.save_pretrained(folder)
    save_processor(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def reference(pixels: Tensor, labels: Sequence[str]) -> Tensor:
        tokens = tokenizer([f"a video of {name}" for name in labels], padding=True, return_tensors="pt")
        return model(pixel_values=pixels, **tokens).logits_per_video

    return TinyCheckpoint(folder, 4, reference)


BUILDERS: dict[str, Callable[[Path], TinyCheckpoint]] = {
    "videomae": videomae,
    "timesformer": timesformer,
    "xclip": xclip,
}
