"""A transformer that sees and hears: visual tokens (tubelets of frames) with log-mel tokens (patches of the picture of
the sound), fused by concatenation or by cross-attention.

`concatenation`: all tokens attend to all, as in a single-stream transformer (MBT without bottlenecks, Nagrani et al.
2021, arXiv:2107.00135; VATT's shared tower, Akbari et al. 2021, arXiv:2104.11178). `cross-attention`: visual tokens
attend to each other and then to the sound's, which attend to each other in layers of their own, as in a decoder
(Vaswani et al. 2017). A clip without sound is seen only.

Importing this module imports transformers.
"""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from vidcls_batch.models.recipes import AUDIOSET_MEAN, AUDIOSET_STD

MODEL_TYPE = "vidcls-av-transformer"
Fusion = Literal["concatenation", "cross-attention"]


class AvTransformerConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes; `sound_frames` x `num_mel_bins` is the picture of the sound, `(mel - sound_mean) / (2 sound_std)`."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        *,
        fusion: Fusion = "concatenation",
        image_size: int = 224,
        num_frames: int = 16,
        patch_size: int = 16,
        tubelet_size: int = 2,
        sample_rate: int = 16_000,
        sound_frames: int = 1024,
        num_mel_bins: int = 128,
        sound_patch_size: int = 16,
        sound_mean: float = AUDIOSET_MEAN,
        sound_std: float = AUDIOSET_STD,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        num_sound_layers: int = 2,
        initializer_range: float = 0.02,
        **others: Any,
    ) -> None:
        if fusion not in ("concatenation", "cross-attention"):
            raise ValueError(f"fusion is {fusion!r}; known: concatenation, cross-attention")
        for what, whole, part in (
            ("num_frames", num_frames, tubelet_size),
            ("image_size", image_size, patch_size),
            ("sound_frames", sound_frames, sound_patch_size),
            ("num_mel_bins", num_mel_bins, sound_patch_size),
            ("hidden_size", hidden_size, 2 * num_attention_heads),
        ):
            if whole % part:
                raise ValueError(f"{what} is {whole}, expected a multiple of {part}")
        self.fusion = fusion
        self.image_size, self.num_frames = image_size, num_frames
        self.patch_size, self.tubelet_size = patch_size, tubelet_size
        self.sample_rate, self.sound_frames, self.num_mel_bins = sample_rate, sound_frames, num_mel_bins
        self.sound_patch_size, self.sound_mean, self.sound_std = sound_patch_size, sound_mean, sound_std
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads, self.intermediate_size = num_attention_heads, intermediate_size
        self.num_sound_layers, self.initializer_range = num_sound_layers, initializer_range
        super().__init__(**others)


class AvTransformerForVideoClassification(PreTrainedModel):  # type: ignore[misc]
    """Pixels and log-mel to logits."""

    config_class = AvTransformerConfig
    base_model_prefix = "fused"
    main_input_name = "pixel_values"

    def __init__(self, config: AvTransformerConfig) -> None:
        super().__init__(config)
        width, patch, sound_patch = config.hidden_size, config.patch_size, config.sound_patch_size
        tubelet = (config.tubelet_size, patch, patch)
        self.frame_patches = nn.Conv3d(3, width, tubelet, tubelet)
        self.sound_patches = nn.Conv2d(1, width, sound_patch, sound_patch)
        self.kinds = nn.Embedding(3, width)  # seen, heard, and the token that says there is no more to hear
        self.sound_layers = nn.ModuleList()
        if config.fusion == "cross-attention":
            self.sound_layers.extend(_layer(nn.TransformerEncoderLayer, config) for _ in range(config.num_sound_layers))
            self.layers = nn.ModuleList(
                _layer(nn.TransformerDecoderLayer, config) for _ in range(config.num_hidden_layers)
            )
        else:
            self.layers = nn.ModuleList(
                _layer(nn.TransformerEncoderLayer, config) for _ in range(config.num_hidden_layers)
            )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, config.num_labels)
        self.post_init()

    def embed(self, pixel_values: Tensor, log_mel: Tensor, has_sound: Tensor) -> Tensor:
        """Pixels [N, T, 3, H, W], log-mel [N, frames, mels], whether there is sound bool [N] -> [N, D]."""
        seen = self.frame_patches(pixel_values.transpose(1, 2)).flatten(2).transpose(1, 2)
        heard = self.sound_patches(log_mel.unsqueeze(1)).flatten(2).transpose(1, 2)
        seen = seen + sines(seen) + self.kinds.weight[0]
        heard = heard + sines(heard) + self.kinds.weight[1]
        # Attention needs something to look at where all sound is masked.
        end = self.kinds.weight[2].expand(len(heard), 1, -1)
        heard = torch.cat([heard, end], dim=1)
        deaf = ~has_sound.unsqueeze(1).expand(-1, heard.shape[1]).clone()
        deaf[:, -1] = False
        if self.config.fusion == "cross-attention":
            for layer in self.sound_layers:
                heard = layer(heard, src_key_padding_mask=deaf)
            for layer in self.layers:
                seen = layer(seen, heard, memory_key_padding_mask=deaf)
            return cast(Tensor, self.norm(seen.mean(dim=1)))
        tokens = torch.cat([seen, heard], dim=1)
        masked = torch.cat([torch.zeros_like(deaf[:, :1]).expand(-1, seen.shape[1]), deaf], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=masked)
        kept = (~masked).unsqueeze(2).to(tokens.dtype)
        return cast(Tensor, self.norm((tokens * kept).sum(dim=1) / kept.sum(dim=1)))

    def forward(
        self, pixel_values: Tensor, log_mel: Tensor, has_sound: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """`logits` [N, K] and, with `labels` int64 [N], their cross-entropy as `loss`."""
        logits = self.classifier(self.embed(pixel_values, log_mel, has_sound))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d | nn.Conv3d):
            init.normal_(module.weight, std=self.config.initializer_range)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.MultiheadAttention):
            init.xavier_uniform_(module.in_proj_weight)
            init.zeros_(module.in_proj_bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


def sines(tokens: Tensor) -> Tensor:
    """Positions [T, D] of tokens [N, T, D]: sines and cosines of falling frequency (Vaswani et al. 2017)."""
    places, width = tokens.shape[1:]
    rates = 10_000.0 ** (-torch.arange(0, width, 2, device=tokens.device) / width)
    angles = torch.arange(places, device=tokens.device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(tokens.dtype)


def _layer(
    kind: type[nn.TransformerEncoderLayer] | type[nn.TransformerDecoderLayer], config: AvTransformerConfig
) -> nn.Module:
    return kind(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
