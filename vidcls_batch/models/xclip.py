"""X-CLIP (Ni et al. 2022, arXiv:2208.02816): CLIP with attention across frames and prompts that look at the video."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import FamilyDescription, LoadedNetwork, Scores, TextScorer
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.input_spec import read_input_spec, resolve_sampling
from vidcls_batch.models.pretrained import load_pretrained
from vidcls_batch.models.recipes import IMAGENET_MEAN, IMAGENET_STD, square
from vidcls_batch.models.transformers_video import read_config, read_size
from vidcls_batch.models.zero_shot import embed_labels, open_tokenizer
from vidcls_batch.types import Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# The prompt generator holds [clips, labels, 4 * width] at once: so many labels at a time keep that below a few 100 MB.
LABELS_AT_ONCE = 1024


class XClipModel(Protocol):
    """The parts of transformers' XCLIPModel used here."""

    vision_model: "nn.Module"
    visual_projection: "nn.Module"
    mit: "nn.Module"
    prompts_visual_layernorm: "nn.Module"
    prompts_visual_projection: "Tensor"
    prompts_generator: "nn.Module"
    text_model: "nn.Module"
    text_projection: "nn.Module"
    logit_scale: "Tensor"


@dataclass(frozen=True, slots=True)
class XClipFamily:
    """Zero-shot: the label set's texts are embedded once at load."""

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """Frames and size from the vision part of config.json; 8 frames spread over the clip, as published."""
        config = read_config(checkpoint, model_types=("xclip",))
        vision = config.get("vision_config")
        if not isinstance(vision, dict):
            raise CheckpointError(f"{checkpoint.name}: config.json has no vision_config")
        frames, size = read_size(vision, "num_frames", 8), read_size(vision, "image_size", 224)
        resolved = resolve_sampling(Sampling(num_frames=frames), sampling, fixed_frames=True)
        recipe = square(resolved, size, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        spec, source = read_input_spec(checkpoint, recipe=recipe)
        dim = config.get("projection_dim", 512)
        return FamilyDescription(
            input=spec,
            preprocessing_from=source,
            zero_shot=True,
            num_outputs=None,
            labels=None,
            embedding_dim=cast(int, dim),
            context_dim=(size // read_size(vision, "patch_size", 32)) ** 2 * cast(int, dim),
        )

    def load(
        self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...], device: str, dtype: "torch.dtype"
    ) -> LoadedNetwork:
        """The model without its text tower, which is used up here."""
        module = load_pretrained(checkpoint, model_class="XCLIPModel").to(device)
        num_parameters = sum(p.numel() for p in module.parameters())
        model = cast(XClipModel, module)
        text_features = embed_texts(model, checkpoint, texts).to(dtype)
        del model.text_model, model.text_projection
        scale = float(model.logit_scale.exp())
        module.to(dtype)

        def network(pixels: "Tensor") -> Scores:
            video, patches = encode_video(model, pixels)
            logits = score_texts(model, video, patches, text_features, scale=scale)
            return Scores(logits=logits, embeddings=video, context=patches.flatten(1))

        return LoadedNetwork(network=network, num_parameters=num_parameters, module=module)

    def embed_label_texts(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> "Tensor":
        """Text features float32 [K, D], before the prompt generator."""
        model = cast(XClipModel, load_pretrained(checkpoint, model_class="XCLIPModel"))
        return embed_texts(model, checkpoint, texts)

    def load_text_scorer(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> TextScorer:
        """The prompt generator over stored videos and patches."""
        import torch

        model = cast(XClipModel, load_pretrained(checkpoint, model_class="XCLIPModel"))
        text_features = embed_texts(model, checkpoint, texts)
        scale = float(model.logit_scale.exp())

        def score(embeddings: "Tensor", context: "Tensor | None") -> "Tensor":
            if context is None:
                raise ValueError("X-CLIP's texts look at the video: its context is needed")
            patches = context.view(len(context), -1, text_features.shape[1])
            with torch.inference_mode():
                return score_texts(model, embeddings, patches, text_features, scale=scale)

        return score


def embed_texts(model: XClipModel, checkpoint: Checkpoint, texts: tuple[tuple[str, ...], ...]) -> "Tensor":
    """Text features float32 [K, D] before the prompt generator; the texts of a label are averaged."""
    device = model.logit_scale.device
    positions = int(model.text_model.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]

    tokenize = open_tokenizer(checkpoint, max_length=positions)

    def embed(some: list[str]) -> "Tensor":
        ids, mask = tokenize(some)
        output = model.text_model(input_ids=ids.to(device), attention_mask=mask.to(device))
        return cast("Tensor", model.text_projection(output.pooler_output))

    return embed_labels(texts, embed=embed, checkpoint=checkpoint, kind="xclip").to(device)


def encode_video(model: XClipModel, pixels: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Pixels [N, T, 3, H, W] to the pooled video [N, D] and its patches averaged over time [N, P, D]."""
    clips = pixels.shape[:2]
    vision = model.vision_model(pixel_values=pixels.flatten(0, 1))
    video = model.mit(model.visual_projection(vision.pooler_output).unflatten(0, clips)).pooler_output
    patches = model.prompts_visual_layernorm(vision.last_hidden_state[:, 1:]).unflatten(0, clips)
    # The projection is linear: averaging over time before it is the same and T times cheaper.
    return video, patches.mean(dim=1) @ model.prompts_visual_projection


def score_texts(
    model: XClipModel, video: "Tensor", patches: "Tensor", text_features: "Tensor", *, scale: float
) -> "Tensor":
    """Logits float32 [N, K]: scaled cosine of each video [N, D] with the label texts [K, D] prompted by its patches."""
    import torch

    video = torch.nn.functional.normalize(video.float(), dim=-1)
    logits = []
    for start in range(0, len(text_features), LABELS_AT_ONCE):
        texts = text_features[start : start + LABELS_AT_ONCE].unsqueeze(0).expand(video.shape[0], -1, -1)
        texts = texts + model.prompts_generator(texts, patches)
        logits.append(torch.einsum("nd,nkd->nk", video, torch.nn.functional.normalize(texts.float(), dim=-1)))
    return scale * torch.cat(logits, dim=1)


FAMILY = XClipFamily()
