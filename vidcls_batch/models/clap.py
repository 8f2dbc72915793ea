"""CLAP (Wu et al. 2023, arXiv:2211.06687): sound and label texts in one space, zero-shot. It sees no frames."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import FamilyDescription, LoadedNetwork, Scores, Sound, TextScorer
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.dual_encoder import TextSide
from vidcls_batch.models.input_spec import refuse_sampling
from vidcls_batch.models.log_mel import MelSpec, log_mel, repeated
from vidcls_batch.models.transformers_video import read_config, read_size
from vidcls_batch.types import SoundWindow

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PROCESSOR = "preprocessor_config.json"
_MODEL_TYPE = "clap"
_TEXTS = TextSide(
    model_types=(_MODEL_TYPE,),
    model_classes={_MODEL_TYPE: "ClapModel"},
    max_tokens=512,
    pad_to_max=False,
    mask_padding=True,
    scale="logit_scale_a",
)


@dataclass(frozen=True, slots=True)
class ClapInput:
    """What `ClapFeatureExtractor` makes of sound no longer than the network's: the longer is cut before it comes here,
    at the middle, where the extractor draws the place (`rand_trunc`) or four pictures (`fusion`) by lot.
    """

    mel: MelSpec
    num_samples: int
    padding: Literal["repeatpad", "repeat", "pad"]
    channels: int  # 4 in networks with fusion, which look at the first of a short clip

    @property
    def window(self) -> SoundWindow:
        """As much sound as the network takes."""
        return SoundWindow(self.mel.sample_rate, self.num_samples)

    def features(self, sound: Sound) -> "Tensor":
        """Float32 [N, channels, frames, mels]."""
        import torch

        if self.padding == "pad":
            samples = torch.nn.functional.pad(sound.samples, (0, self.num_samples - sound.samples.shape[1]))
        else:
            samples = repeated(sound, num_samples=self.num_samples, whole=self.padding == "repeatpad")
        return log_mel(samples, self.mel).unsqueeze(1).expand(-1, self.channels, -1, -1)


def read_clap_input(checkpoint: Checkpoint) -> tuple[ClapInput, str]:
    """The checkpoint's own, and the file that says so; the authors' where there is none. Raises CheckpointError."""
    config = read_config(checkpoint, model_types=(_MODEL_TYPE,))
    audio = config.get("audio_config")
    audio = audio if isinstance(audio, dict) else {}
    facts = checkpoint.read_json(_PROCESSOR)
    own: dict[str, object] = {} if facts is None else facts
    fusion = bool(audio.get("enable_fusion", False))
    truncation = own.get("truncation", "fusion" if fusion else "rand_trunc")
    padding = own.get("padding", "repeatpad")
    if truncation not in ("fusion", "rand_trunc") or padding not in ("repeatpad", "repeat", "pad"):
        raise CheckpointError(
            f"{checkpoint.name}: {_PROCESSOR}: truncation {truncation!r} with padding {padding!r} is not known here"
        )
    rate, fft = read_size(own, "sampling_rate", 48_000), read_size(own, "fft_window_size", 1024)
    low, high = own.get("frequency_min", 0), own.get("frequency_max", 14_000)
    mel = MelSpec(
        sample_rate=rate,
        num_mels=read_size(own, "feature_size", 64),
        frame_samples=fft,
        hop_samples=read_size(own, "hop_length", 480),
        fft_samples=fft,
        low_hz=float(cast(float, low)),
        high_hz=float(cast(float, high)),
        scale="htk" if truncation == "fusion" else "slaney",
        periodic_window=True,
        centered=True,
        floor=1e-10,
        decibels=True,
    )
    read = ClapInput(
        mel=mel,
        num_samples=read_size(own, "max_length_s", 10) * rate,
        padding=padding,
        channels=4 if fusion else 1,
    )
    return read, "family recipe" if facts is None else _PROCESSOR


@dataclass(frozen=True, slots=True)
class ClapFamily:
    """Zero-shot: the label set's texts are embedded once at load; a clip without sound has no scores."""

    def describe(self, checkpoint: Checkpoint, sampling: SamplingConfig) -> FamilyDescription:
        """Width from config.json, preprocessing from the extractor's file."""
        refuse_sampling(sampling)
        config = read_config(checkpoint, model_types=(_MODEL_TYPE,))
        heard, source = read_clap_input(checkpoint)
        return FamilyDescription(
            input=None,
            sound=heard.window,
            preprocessing_from=source,
            zero_shot=True,
            num_outputs=None,
            labels=None,
            embedding_dim=read_size(config, "projection_dim", 512),
        )

    def load(
        self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...], device: str, dtype: "torch.dtype"
    ) -> LoadedNetwork:
        """The model without its text tower, which is used up here."""
        import torch

        heard, _ = read_clap_input(checkpoint)
        module = _TEXTS.load_model(checkpoint).to(device)
        num_parameters = sum(p.numel() for p in module.parameters())
        embedded = _TEXTS.embed(module, checkpoint, texts, device=device)
        scale, bias = _TEXTS.scale_and_bias(module)
        del module.text_model, module.text_projection
        module.to(dtype)

        def network(pixels: "Tensor | None", sound: Sound) -> Scores:
            features = heard.features(sound).to(dtype)
            longer = torch.zeros(len(sound), 1, dtype=torch.bool, device=features.device)
            clips = module.get_audio_features(input_features=features, is_longer=longer)  # type: ignore[operator]
            embeddings = torch.nn.functional.normalize(clips.pooler_output.float(), dim=-1)
            return Scores(
                logits=embeddings @ embedded.T * scale + bias, embeddings=embeddings, present=sound.lengths > 0
            )

        return LoadedNetwork(network=network, num_parameters=num_parameters)

    def embed_label_texts(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> "Tensor":
        """Unit embeddings float32 [K, D]."""
        return _TEXTS.embed_label_texts(checkpoint, texts=texts)

    def load_text_scorer(self, checkpoint: Checkpoint, *, texts: tuple[tuple[str, ...], ...]) -> TextScorer:
        """The cosine of stored embeddings with the texts', scaled as in training."""
        return _TEXTS.load_text_scorer(checkpoint, texts=texts)


FAMILY = ClapFamily()
