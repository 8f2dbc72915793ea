"""Zero-shot by two encoders: a clip's embedding against each label text's, for CLIP's relatives.

Image models see frames one by one and their embeddings are averaged (frame pooling); video models see the clip.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import FamilyDescription, InputSpec, LoadedNetwork, Scores, TextScorer
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.input_spec import read_input_spec, resolve_sampling
from vidcls_batch.models.pretrained import load_pretrained
from vidcls_batch.models.transformers_video import read_config, read_size
from vidcls_batch.models.zero_shot import embed_labels, open_tokenizer
from vidcls_batch.types import Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class _Pooled(Protocol):
    pooler_output: "Tensor"


class DualEncoder(Protocol):
    """The parts of transformers' CLIP-like models used here."""

    def get_text_features(self, *, input_ids: "Tensor", attention_mask: "Tensor | None") -> _Pooled:
        """Text embeddings, not normalised, in `pooler_output` [K, D]."""
        ...


@dataclass(frozen=True, slots=True)
class TextSide:
    """The text encoder of such a model: its class by `model_type`, how its texts were padded in training."""

    model_types: tuple[str, ...]
    model_classes: Mapping[str, str]
    max_tokens: int
    pad_to_max: bool
    mask_padding: bool
    temperature: float | None = None  # None: the model's learned scale (and bias)
    scale: str = "logit_scale"  # the parameter that holds its logarithm

    def load_model(self, checkpoint: Checkpoint) -> "nn.Module":
        """The whole model on the CPU. Raises CheckpointError."""
        config = read_config(checkpoint, model_types=self.model_types)
        return load_pretrained(checkpoint, model_class=self.model_classes[str(config["model_type"])])

    def embed(
        self, module: "nn.Module", checkpoint: Checkpoint, texts: tuple[tuple[str, ...], ...], *, device: str
    ) -> "Tensor":
        """Unit embeddings float32 [K, D]; the texts of a label are averaged, as CLIP's authors do."""
        import torch

        model = cast(DualEncoder, module)

        tokenize = open_tokenizer(checkpoint, max_length=self.max_tokens, pad_to_max=self.pad_to_max)

        def embed(some: list[str]) -> "Tensor":
            ids, mask = tokenize(some)
            attention = mask.to(device) if self.mask_padding else None
            features = model.get_text_features(input_ids=ids.to(device), attention_mask=attention)
            return torch.nn.functional.normalize(features.pooler_output, dim=-1)

        kind = f"dual {self.max_tokens} {self.pad_to_max} {self.mask_padding}"
        mean = embed_labels(texts, embed=embed, checkpoint=checkpoint, kind=kind)
        return torch.nn.functional.normalize(mean, dim=-1).to(device)

    def scale_and_bias(self, module: "nn.Module") -> tuple[float, float]:
        """What makes logits of cosines. Raises CheckpointError for a model that has no scale."""
        if self.temperature is not None:
            return 1 / self.temperature, 0.0
        parameters = dict(module.named_parameters(recurse=False))
        if self.scale not in parameters:
            raise CheckpointError(f"{type(module).__name__} has no {self.scale}")
        bias = parameters.get("logit_bias")
        return float(parameters[self.scale].exp()), 0.0 if bias is None else float(bias)

    def embed_label_texts(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> "Tensor":
        """Unit embeddings float32 [K, D], by a model loaded for it."""
        return self.embed(self.load_model(checkpoint), checkpoint, texts, device="cpu")

    def load_text_scorer(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> TextScorer:
        """The cosine of stored embeddings with the texts', scaled as in training."""
        import torch

        module = self.load_model(checkpoint)
        embedded = self.embed(module, checkpoint, texts, device="cpu")
        scale, bias = self.scale_and_bias(module)

        def score(embeddings: "Tensor", context: "Tensor | None") -> "Tensor":
            return torch.nn.functional.normalize(embeddings, dim=-1) @ embedded.T * scale + bias

        return score


# The model and pixels [N, T, 3, H, W] -> embeddings [N, D], normalised.
Encode = Callable[["nn.Module", "Tensor"], "Tensor"]


@dataclass(frozen=True, slots=True)
class DualEncoderFamily:
    """One such family: its classes by `model_type`, how its texts were padded in training, how it sees a clip."""

    model_types: tuple[str, ...]
    model_classes: Mapping[str, str]
    default_frames: int
    fixed_frames: bool
    default_size: int
    max_tokens: int
    pad_to_max: bool
    mask_padding: bool
    recipe: Callable[[Sampling, int], InputSpec]
    encode: Encode
    temperature: float | None = None  # None: the model's learned scale (and bias)

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """Size and width from config.json, preprocessing from the processor's file."""
        config = read_config(checkpoint, model_types=self.model_types)
        vision = config.get("vision_config")
        vision = vision if isinstance(vision, dict) else {}
        frames = read_size(vision, "num_frames", self.default_frames)
        resolved = resolve_sampling(Sampling(num_frames=frames), sampling, fixed_frames=self.fixed_frames)
        spec, source = read_input_spec(checkpoint, recipe=self.recipe(resolved, self._image_size(vision)))
        width = config.get("projection_dim") or vision.get("hidden_size") or 768
        return FamilyDescription(
            input=spec,
            preprocessing_from=source,
            zero_shot=True,
            num_outputs=None,
            labels=None,
            embedding_dim=cast(int, width),
        )

    def load(
        self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...], device: str, dtype: "torch.dtype"
    ) -> LoadedNetwork:
        """The model without its text tower, which is used up here."""
        import torch

        side = self._text_side
        module = side.load_model(checkpoint).to(device)
        num_parameters = sum(p.numel() for p in module.parameters())
        embedded = side.embed(module, checkpoint, texts, device=device)
        scale, bias = side.scale_and_bias(module)
        for name in ("text_model", "text_projection"):
            if hasattr(module, name):
                delattr(module, name)
        module.to(dtype)

        def network(pixels: "Tensor") -> Scores:
            clips = torch.nn.functional.normalize(self.encode(module, pixels).float(), dim=-1)
            return Scores(logits=clips @ embedded.T * scale + bias, embeddings=clips)

        return LoadedNetwork(network=network, num_parameters=num_parameters, module=module)

    def embed_label_texts(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> "Tensor":
        """Unit embeddings float32 [K, D]."""
        return self._text_side.embed_label_texts(checkpoint, texts=texts)

    def load_text_scorer(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> TextScorer:
        """The cosine of stored embeddings with the texts', scaled as in training."""
        return self._text_side.load_text_scorer(checkpoint, texts=texts)

    @property
    def _text_side(self) -> TextSide:
        return TextSide(
            model_types=self.model_types,
            model_classes=self.model_classes,
            max_tokens=self.max_tokens,
            pad_to_max=self.pad_to_max,
            mask_padding=self.mask_padding,
            temperature=self.temperature,
        )

    def _image_size(self, vision: Mapping[str, object]) -> int:
        if (
            "image_size" not in vision and "num_patches" in vision
        ):  # SigLIP 2 of any resolution: a square of its patches
            side = int(read_size(vision, "num_patches", 256) ** 0.5)
            return side * read_size(vision, "patch_size", 16)
        return read_size(vision, "image_size", self.default_size)


def encode_frames(module: "nn.Module", pixels: "Tensor") -> "Tensor":
    """The mean over a clip's frames of their unit embeddings; the order of frames does not matter."""
    from torch.nn.functional import normalize

    frames = module.get_image_features(pixel_values=pixels.flatten(0, 1)).pooler_output  # type: ignore[operator]
    return normalize(frames.float(), dim=-1).view(*pixels.shape[:2], -1).mean(dim=1)


def encode_clips(module: "nn.Module", pixels: "Tensor") -> "Tensor":
    """The embedding of the clip as a whole."""
    clips = module.get_video_features(pixel_values_videos=pixels).pooler_output  # type: ignore[operator]
    return cast("Tensor", clips.flatten(1))
