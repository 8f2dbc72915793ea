"""Checkpoints of random weights at the families' published sizes, and what a loop of one's own would call of each."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from contracts.tiny_checkpoints import save_byte_tokenizer, save_processor, save_roberta_byte_tokenizer

from vidcls_batch.config import LabelSetConfig, MemberConfig
from vidcls_batch.models.ast_audio import read_ast_input
from vidcls_batch.models.av_transformer import read_heard
from vidcls_batch.models.base import Sound
from vidcls_batch.models.checkpoints import open_checkpoint
from vidcls_batch.models.clap import read_clap_input
from vidcls_batch.models.member import LoadedMember
from vidcls_batch.models.registry import family_facts, open_family

LABELS = tuple(f"label {i}" for i in range(400))
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}

_CROP = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
_SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "resample": 3}
_CLIP = {"image_processor_type": "CLIPImageProcessor"}
_PRISM = {"size": {"height": 288, "width": 288}, "do_center_crop": False, "do_normalize": False, "resample": 3}
# family -> transformers' name, what differs in its text half from the default, its processor.
ZERO_SHOT: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "xclip": ("XCLIP", {}, _CROP),
    "clip": ("CLIP", {}, _CROP | _CLIP),
    "siglip": ("Siglip", {}, _SQUARE),
    "siglip2": ("Siglip2", {}, {}),
    "metaclip2": ("MetaClip2", {}, _CROP | _CLIP),
    "videoprism_lvt": ("VideoPrism", {}, _PRISM),
    "clap": ("Clap", {}, {}),
}
IMAGE_MODELS = ("clip", "siglip", "metaclip2")

# family -> configuration class, model class, what differs from transformers' defaults (its base sizes), the model's
# name for pixels.
TRANSFORMERS: dict[str, tuple[str, str, dict[str, object], str]] = {
    "videomae": ("VideoMAEConfig", "VideoMAEForVideoClassification", {}, "pixel_values"),
    "timesformer": ("TimesformerConfig", "TimesformerForVideoClassification", {}, "pixel_values"),
    "vivit": ("VivitConfig", "VivitForVideoClassification", {}, "pixel_values"),
    "vjepa2": ("VJEPA2Config", "VJEPA2ForVideoClassification", {"frames_per_clip": 16}, "pixel_values_videos"),
    "videoprism": ("VideoPrismVisionConfig", "VideoPrismForVideoClassification", {}, "pixel_values_videos"),
    "ast": ("ASTConfig", "ASTForAudioClassification", {}, "input_values"),
}


def save_checkpoint(family: str, folder: Path) -> MemberConfig:
    """A checkpoint of random weights at the family's published size."""
    named = MemberConfig(name="m", family=family, checkpoint=str(folder))
    if family in TRANSFORMERS:
        import transformers

        config_class, model_class, size, _ = TRANSFORMERS[family]
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**size, **NAMES))
        model.save_pretrained(folder)
        if family == "videoprism":
            save_processor(folder, **_PRISM)
        return named
    if family in ZERO_SHOT:
        _save_zero_shot(family, folder)
        return named
    if family == "av_transformer":
        from vidcls_batch.models.av_transformer_network import AvTransformerConfig, AvTransformerForVideoClassification

        AvTransformerForVideoClassification(AvTransformerConfig(**NAMES)).save_pretrained(folder)
        save_processor(folder, size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
        return named
    implementation: Any = open_family(family)
    if family_facts(family).zero_shot or not hasattr(implementation, "build"):
        ours = [*TRANSFORMERS, *ZERO_SHOT, "av_transformer"]
        raise SystemExit(f"{family} is not measured here; measured: {', '.join(ours)} and the 3D networks")
    torch.save(implementation.build(len(LABELS)).state_dict(), folder / "weights.pth")
    return MemberConfig(
        name="m", family=family, checkpoint=str(folder / "weights.pth"), labels=LabelSetConfig(labels=LABELS)
    )


def bare_call(
    family: str, folder: Path, member: LoadedMember, *, picture: Tensor | None, has_sound: Tensor | None
) -> Callable[[Tensor | None], object]:
    """The network on ready pixels and the `picture` of ready sound, as a loop of one's own calls it.

    Of transformers' models it is the checkpoint as transformers loads it; of the 3D networks the member's own module.
    """

    def load(model_class: Any) -> Any:
        return model_class.from_pretrained(folder, dtype=member.dtype).to(member.device).eval()

    import transformers

    if family in TRANSFORMERS:
        _, model_class, _, name = TRANSFORMERS[family]
        model = load(getattr(transformers, model_class))
        return lambda pixels: model(**{name: pixels if picture is None else picture}).logits
    if family in IMAGE_MODELS:
        model = load(transformers.AutoModel)
        return lambda pixels: model.get_image_features(pixel_values=pixels.flatten(0, 1))
    if family == "videoprism_lvt":
        model = load(transformers.AutoModel)
        return lambda pixels: model.get_video_features(pixel_values_videos=pixels)
    if family == "clap":
        model = load(transformers.AutoModel)
        longer = torch.zeros_like(has_sound).unsqueeze(1)
        return lambda _: model.get_audio_features(input_features=picture, is_longer=longer)
    if family == "av_transformer":
        from vidcls_batch.models.av_transformer_network import AvTransformerForVideoClassification

        model = load(AvTransformerForVideoClassification)
        return lambda pixels: model(pixels, picture, has_sound).logits
    if picture is not None:
        implementation: Any = open_family(family)
        network = implementation.build(len(LABELS)).to(device=member.device, dtype=member.dtype).eval()
        return lambda pixels: network(pixels, picture, has_sound)
    return member.network


def to_picture(family: str, folder: Path) -> Callable[[Sound], Tensor]:
    """What turns sound into the log-mel picture that a family which hears takes."""
    checkpoint = open_checkpoint(str(folder))
    if family == "ast":
        heard: Any = read_ast_input(checkpoint)[0]
    elif family == "clap":
        heard = read_clap_input(checkpoint)[0]
    elif family == "av_transformer":
        heard = read_heard(checkpoint)
    else:
        implementation: Any = open_family(family)
        heard = implementation.heard
    features: Callable[[Sound], Tensor] = heard.features
    return features


def _save_zero_shot(family: str, folder: Path) -> None:
    """Base size, with a tokenizer of bytes: its texts are embedded once, before anything is timed."""
    import transformers

    name, text, processor = ZERO_SHOT[family]
    if family == "clap":
        text = text | {"vocab_size": save_roberta_byte_tokenizer(folder)}
        transformers.ClapFeatureExtractor().save_pretrained(folder)
    else:
        vocabulary = save_byte_tokenizer(folder, max_length=64)
        text = text | {"vocab_size": vocabulary, "eos_token_id": vocabulary - 1, "bos_token_id": vocabulary - 2}
    if processor:
        save_processor(folder, **processor)
    model = "VideoPrismClipModel" if family == "videoprism_lvt" else f"{name}Model"
    config = getattr(transformers, f"{name}Config")(text_config=text)
    getattr(transformers, model)(config).save_pretrained(folder)
