"""Tiny randomly initialised checkpoints, one builder per registered family, each with its reference's logits."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vidcls_batch.models.base import Sound

LABELS = ("riding bike", "surfing water", "abseiling")
SIZE = 32


@dataclass(frozen=True)
class TinyCheckpoint:
    """A saved checkpoint and what its own library says of normalised pixels [N, T, 3, H, W], of the clips' sound, or of
    both, whatever the family takes, and of label texts.
    """

    path: Path
    reference: Callable[..., Tensor]
    needs_labels: bool = False  # the head's outputs have no names in the checkpoint
    tolerance: float = 1e-5
    num_frames: int | None = None  # fewer than published, where the network takes any number


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


def classifier_checkpoint(folder: Path, model: torch.nn.Module) -> TinyCheckpoint:
    """Save a transformers model with a trained head; its own forward pass is the reference."""
    randomise(model).save_pretrained(folder)
    save_processor(folder)
    return TinyCheckpoint(folder, lambda pixels, _: model(pixels).logits)


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
    return classifier_checkpoint(folder, VideoMAEForVideoClassification(config))


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
    return classifier_checkpoint(folder, TimesformerForVideoClassification(config))


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

    return TinyCheckpoint(folder, reference)


def vivit(folder: Path) -> TinyCheckpoint:
    from transformers import VivitConfig, VivitForVideoClassification

    config = VivitConfig(
        image_size=SIZE,
        num_frames=4,
        tubelet_size=[2, 16, 16],
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        **names(),
    )
    tiny = classifier_checkpoint(folder, VivitForVideoClassification(config))
    save_processor(folder, offset=True, rescale_factor=1 / 127.5, size={"shortest_edge": 36}, **HALF)
    return tiny


def vjepa2(folder: Path) -> TinyCheckpoint:
    from transformers import VJEPA2Config, VJEPA2ForVideoClassification

    config = VJEPA2Config(
        crop_size=SIZE,
        frames_per_clip=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_pooler_layers=1,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        **names(),
    )
    tiny = classifier_checkpoint(folder, VJEPA2ForVideoClassification(config))
    (folder / "preprocessor_config.json").rename(folder / "video_preprocessor_config.json")
    return tiny


VIDEOPRISM_VISION = {
    "image_size": SIZE,
    "num_frames": 4,
    "tubelet_size": [1, 16, 16],
    "hidden_size": 24,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_spatial_layers": 2,
    "num_temporal_layers": 1,
    "num_auxiliary_layers": 1,
}


def videoprism(folder: Path) -> TinyCheckpoint:
    from transformers import VideoPrismForVideoClassification, VideoPrismVisionConfig

    model = VideoPrismForVideoClassification(VideoPrismVisionConfig(**VIDEOPRISM_VISION, **names()))
    randomise(model).save_pretrained(folder)
    save_processor(folder, do_normalize=False, do_center_crop=False, size={"height": SIZE, "width": SIZE})
    return TinyCheckpoint(folder, lambda pixels, _: model(pixels).logits.squeeze(1))


def videoprism_lvt(folder: Path) -> TinyCheckpoint:
    from transformers import AutoTokenizer, VideoPrismClipModel, VideoPrismConfig

    vocabulary = save_byte_tokenizer(folder, max_length=64)
    text = TEXT | {"vocab_size": vocabulary, "max_position_embeddings": 64}
    model = randomise(VideoPrismClipModel(VideoPrismConfig(text_config=text, vision_config=VIDEOPRISM_VISION)))
    model.save_pretrained(folder)
    save_processor(folder, do_normalize=False, do_center_crop=False, size={"height": SIZE, "width": SIZE})
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def reference(pixels: Tensor, labels: Sequence[str]) -> Tensor:
        tokens = tokenizer(prompts(labels), padding="max_length", max_length=64, return_tensors="pt")
        output = model(pixel_values_videos=pixels, **tokens)
        # The model's own logits are a softmax over the videos of the batch; the similarities are what we compare.
        return output.video_embeds @ output.text_embeds.T / 0.01

    return TinyCheckpoint(folder, reference, tolerance=2e-4)  # unit vectors scaled by 100


HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
TEXT = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = TEXT | {"image_size": SIZE, "patch_size": 16}


def prompts(labels: Sequence[str]) -> list[str]:
    return [f"a video of {name}" for name in labels]


def pooled(
    folder: Path, build: Callable[[int], torch.nn.Module], *, padding: object, masks: bool, naflex: bool = False
) -> TinyCheckpoint:
    """A CLIP-like image model; its own logits of single frames, averaged as unit embeddings, are the reference."""
    from transformers import AutoTokenizer

    model = randomise(build(save_byte_tokenizer(folder, max_length=64)))
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def reference(pixels: Tensor, labels: Sequence[str]) -> Tensor:
        tokens = dict(tokenizer(prompts(labels), padding=padding, max_length=64, truncation=True, return_tensors="pt"))
        if not masks:
            tokens.pop("attention_mask")
        images = {"pixel_values": pixels.flatten(0, 1)}
        if naflex:
            images = naflex_inputs(pixels.flatten(0, 1))
        output = model(**images, **tokens)
        # The mean of unit frame embeddings, made a unit vector: cosines of the frames' mean direction.
        clips = output.image_embeds.view(*pixels.shape[:2], -1).mean(dim=1)
        cosines = torch.nn.functional.normalize(clips, dim=-1) @ output.text_embeds.T
        bias = model.logit_bias if hasattr(model, "logit_bias") else 0.0
        return cosines * model.logit_scale.exp() + bias

    return TinyCheckpoint(folder, reference)


def naflex_inputs(images: Tensor) -> dict[str, Tensor]:
    """Patches, mask and shapes as the checkpoint's own processor makes them, from images it need not resize."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    processor = Siglip2ImageProcessorPil(patch_size=16, do_resize=False, do_rescale=False, do_normalize=False)
    inputs = processor(list(images), max_num_patches=4, return_tensors="pt")
    return dict(inputs)


def clip(folder: Path) -> TinyCheckpoint:
    from transformers import CLIPConfig, CLIPModel

    def build(vocabulary: int) -> torch.nn.Module:
        end = vocabulary - 1
        text = TEXT | {"vocab_size": vocabulary, "eos_token_id": end, "bos_token_id": end - 1}
        return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16))

    tiny = pooled(folder, build, padding=True, masks=True)
    save_processor(folder, image_processor_type="CLIPImageProcessor", resample=3)
    return tiny


def metaclip2(folder: Path) -> TinyCheckpoint:
    from transformers import MetaClip2Config, MetaClip2Model

    def build(vocabulary: int) -> torch.nn.Module:
        end = vocabulary - 1
        text = TEXT | {"vocab_size": vocabulary, "eos_token_id": end, "bos_token_id": end - 1}
        return MetaClip2Model(MetaClip2Config(text_config=text, vision_config=VISION, projection_dim=16))

    tiny = pooled(folder, build, padding=True, masks=True)
    save_processor(folder, image_processor_type="CLIPImageProcessor", resample=3)
    return tiny


def siglip(folder: Path) -> TinyCheckpoint:
    from transformers import SiglipConfig, SiglipModel

    def build(vocabulary: int) -> torch.nn.Module:
        return SiglipModel(SiglipConfig(text_config=TEXT | {"vocab_size": vocabulary}, vision_config=VISION))

    tiny = pooled(folder, build, padding="max_length", masks=False)
    save_processor(folder, **HALF, do_center_crop=False, size={"height": SIZE, "width": SIZE}, resample=3)
    return tiny


def siglip2(folder: Path) -> TinyCheckpoint:
    from transformers import Siglip2Config, Siglip2Model

    def build(vocabulary: int) -> torch.nn.Module:
        vision = TEXT | {"patch_size": 16, "num_patches": 4}
        return Siglip2Model(Siglip2Config(text_config=TEXT | {"vocab_size": vocabulary}, vision_config=vision))

    return pooled(folder, build, padding="max_length", masks=False, naflex=True)


def own_network(family: str, *, small: bool = True) -> Callable[[Path], TinyCheckpoint]:
    """Our own network at its full width, on small frames where it takes them, in the form of PyTorchVideo's files."""

    def build(folder: Path) -> TinyCheckpoint:
        from vidcls_batch.models.registry import open_family

        torch.manual_seed(0)
        network = open_family(family).build(len(LABELS)).eval()
        with torch.no_grad():
            for name, module in network.named_modules():
                if isinstance(module, torch.nn.BatchNorm3d):
                    module.running_mean.normal_(0, 0.2)
                    module.running_var.uniform_(0.5, 1.5)
                    module.weight.fill_(0.3 if name.endswith("norm_c") else 1.0)
                elif isinstance(module, torch.nn.Linear):
                    module.weight.normal_(0, 0.05)
        torch.save({"model_state": network.state_dict()}, folder / "weights.pyth")
        if small:
            save_processor(folder)
        # The network itself is held to its oracle elsewhere; this is about what lies around it.
        return TinyCheckpoint(folder, lambda pixels, _: network(pixels).logits, needs_labels=True)

    return build


PYTORCHVIDEO = (
    "slow_r50",
    "c2d_r50",
    "i3d_r50",
    "slowfast_r50",
    "slowfast_r101",
    "x3d_xs",
    "x3d_s",
    "x3d_m",
    "x3d_l",
)


def torchvision(
    family: str, *, num_frames: int | None = None, **preprocessing: object
) -> Callable[[Path], TinyCheckpoint]:
    """torchvision's own network, on small frames where it takes them, in the form of the files it publishes."""

    def build(folder: Path) -> TinyCheckpoint:
        from vidcls_batch.models.torchvision_import import import_torchvision

        import_torchvision()
        from torchvision.models import get_model

        torch.manual_seed(0)
        network = get_model(family, weights=None, num_classes=len(LABELS)).eval()
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm3d):
                    module.running_mean.normal_(0, 0.2)
                    module.running_var.uniform_(0.5, 1.5)
                elif isinstance(module, torch.nn.Linear):
                    module.weight.normal_(0, 0.05)
            if family == "s3d":  # at torchvision's own initialisation next to nothing of the frames reaches its head
                for module in network.features.modules():
                    if isinstance(module, torch.nn.Conv3d):
                        module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
                network.classifier[1].weight.normal_(0, 0.01)
        torch.save(network.state_dict(), folder / "weights.pth")
        if preprocessing:
            save_processor(folder, **preprocessing)
        return TinyCheckpoint(
            folder,
            lambda pixels, _: network(pixels.transpose(1, 2)),
            needs_labels=True,
            tolerance=1e-4,
            num_frames=num_frames,
        )

    return build


SMALL = {"size": {"shortest_edge": SIZE}}
TORCHVISION = {
    "r3d_18": SMALL,
    "mc3_18": SMALL,
    "r2plus1d_18": SMALL,
    "s3d": {"num_frames": 16},
    "mvit_v1_b": {},
    "mvit_v2_s": {},
    "swin3d_t": SMALL,
    "swin3d_s": SMALL,
    "swin3d_b": SMALL,
}


def exported(to: Literal["pt2", "onnx"]) -> Callable[[Path], TinyCheckpoint]:
    def build(folder: Path) -> TinyCheckpoint:
        """A tiny VideoMAE in one file."""
        from vidcls_batch.models.export import ExportSource, export_checkpoint

        (folder / "source").mkdir()
        source = videomae(folder / "source")
        file = folder / f"tiny.{to}"
        export_checkpoint(ExportSource(checkpoint=str(source.path), family="videomae"), file, to=to)
        return TinyCheckpoint(file, source.reference)

    return build


def extractor_inputs(folder: Path, sound: Sound) -> dict[str, Tensor]:
    """What the checkpoint's own feature extractor makes of each clip's own samples."""
    from transformers import AutoFeatureExtractor

    extract = AutoFeatureExtractor.from_pretrained(folder)
    waves = [wave[:n].numpy() for wave, n in zip(sound.samples, sound.lengths.tolist(), strict=True)]
    return dict(extract(waves, sampling_rate=sound.sample_rate, return_tensors="pt"))


def ast(folder: Path) -> TinyCheckpoint:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    config = ASTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=128,
        num_mel_bins=32,
        **names(),
    )
    model = randomise(ASTForAudioClassification(config))
    model.save_pretrained(folder)
    ASTFeatureExtractor(max_length=128, num_mel_bins=32, mean=-4.0, std=4.0).save_pretrained(folder)
    return TinyCheckpoint(folder, lambda sound, _: model(**extractor_inputs(folder, sound)).logits, tolerance=1e-4)


def save_roberta_byte_tokenizer(folder: Path) -> int:
    """A RoBERTa tokenizer with a token per byte and no merges; gives the number of tokens."""
    from tokenizers import pre_tokenizers
    from transformers import RobertaTokenizerFast

    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    RobertaTokenizerFast(vocab=vocabulary, merges=[], model_max_length=64).save_pretrained(folder)
    return len(tokens)


def clap(folder: Path, *, fusion: bool = False) -> TinyCheckpoint:
    from transformers import AutoTokenizer, ClapConfig, ClapFeatureExtractor, ClapModel

    vocabulary = save_roberta_byte_tokenizer(folder)
    config = ClapConfig(
        text_config=TEXT | {"vocab_size": vocabulary, "max_position_embeddings": 514},
        audio_config={
            "spec_size": 64,
            "num_mel_bins": 16,
            "window_size": 4,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "patch_embeds_hidden_size": 16,
            "enable_fusion": fusion,
            "fusion_type": "aff_2d" if fusion else None,
        },
        projection_dim=16,
    )
    model = randomise(ClapModel(config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and "norm" not in name.lower():
                parameter.mul_(3)  # at 0.2 all sounds are much the same to a network of norms and windows
        model.logit_scale_a.fill_(5.0)
        model.audio_model.audio_encoder.batch_norm.running_mean.fill_(-40.0)
        model.audio_model.audio_encoder.batch_norm.running_var.fill_(400.0)
    model.save_pretrained(folder)
    truncation = "fusion" if fusion else "rand_trunc"
    ClapFeatureExtractor(feature_size=16, max_length_s=2, truncation=truncation).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def reference(sound: Sound, labels: Sequence[str]) -> Tensor:
        tokens = tokenizer([f"this is a sound of {name}" for name in labels], padding=True, return_tensors="pt")
        inputs = extractor_inputs(folder, sound)
        inputs["is_longer"] = torch.zeros(len(sound), 1, dtype=torch.bool)  # the extractor draws one by lot
        return model(**inputs, **tokens).logits_per_audio

    return TinyCheckpoint(folder, reference, tolerance=1e-4)


def av_transformer(folder: Path, *, fusion: str = "concatenation") -> TinyCheckpoint:
    """Our own network; its forward pass on log-mel by AST's extractor is the reference for what lies around it."""
    from transformers import ASTFeatureExtractor

    from vidcls_batch.models.av_transformer_network import AvTransformerConfig, AvTransformerForVideoClassification

    config = AvTransformerConfig(
        fusion=fusion,
        image_size=SIZE,
        num_frames=4,
        sound_frames=64,
        num_mel_bins=32,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_sound_layers=1,
        **names(),
    )
    model = randomise(AvTransformerForVideoClassification(config))
    model.save_pretrained(folder)
    save_processor(folder)
    extractor = ASTFeatureExtractor(max_length=64, num_mel_bins=32)

    def reference(pixels: Tensor, sound: Sound, _: Sequence[str]) -> Tensor:
        waves = [wave[:n].numpy() for wave, n in zip(sound.samples, sound.lengths.tolist(), strict=True)]
        mel = extractor(waves, sampling_rate=16_000, return_tensors="pt")["input_values"].float()
        return model(pixels, mel, sound.lengths > 0).logits

    return TinyCheckpoint(folder, reference, tolerance=1e-4)


def log_mel_of(sound: Sound) -> Tensor:
    """Each clip's log-mel by transformers' own code, AVSlowFast's recipe: [N, 128, 80], padded with 0, normalised."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    bands = mel_filter_bank(257, 80, 0, 8000, 16_000, norm=None, mel_scale="htk")
    window = window_function(512, "hann")
    pictures = torch.zeros(len(sound), 128, 80)
    for picture, wave, length in zip(pictures, sound.samples, sound.lengths.tolist(), strict=True):
        mel = spectrogram(
            wave[:length].numpy(),
            window,
            frame_length=512,
            hop_length=256,
            power=2.0,
            center=False,
            mel_filters=bands,
            mel_floor=1.192092955078125e-07,
            log_mel="log",
        )
        picture[: mel.shape[1]] = torch.from_numpy(mel.T)
    return (pictures + 4.2677393) / (2 * 4.5689974)


def avslowfast(folder: Path) -> TinyCheckpoint:
    """Our own network at its full width, on small frames; it is held to its oracle elsewhere."""
    own_network("avslowfast_r50")(folder)
    from vidcls_batch.models.av_slowfast import AvSlowFast

    network = AvSlowFast(num_labels=len(LABELS)).eval()
    network.load_state_dict(torch.load(folder / "weights.pyth")["model_state"])
    return TinyCheckpoint(
        folder,
        lambda pixels, sound, _: network(pixels, log_mel_of(sound), sound.lengths > 0).logits,
        needs_labels=True,
        tolerance=1e-4,
    )


BUILDERS: dict[str, Callable[[Path], TinyCheckpoint]] = {
    **{family: torchvision(family, **preprocessing) for family, preprocessing in TORCHVISION.items()},
    **{family: own_network(family) for family in (*PYTORCHVIDEO, "uniformer_s", "uniformer_b")},
    "ast": ast,
    "av_transformer": av_transformer,
    "avslowfast_r50": avslowfast,
    "c3d": own_network("c3d", small=False),
    "clap": clap,
    "clip": clip,
    "exported": exported("pt2"),
    "onnx": exported("onnx"),
    "openvino": exported("onnx"),
    "metaclip2": metaclip2,
    "siglip": siglip,
    "siglip2": siglip2,
    "timesformer": timesformer,
    "videomae": videomae,
    "videoprism": videoprism,
    "videoprism_lvt": videoprism_lvt,
    "vivit": vivit,
    "vjepa2": vjepa2,
    "xclip": xclip,
}
