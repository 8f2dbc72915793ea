"""Learning which caption goes with which clip."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from transformers import XCLIPModel


class ContrastiveModel(nn.Module):
    """A video-text model with the loss of a batch in which several clips may share a caption.

    `forward` gives `loss` and `logits` [B, K] for B clips and K captions; `labels` [B] says which caption is whose.
    With `columns` [K] and `labels` [B, C], captions are compared with those of their own column only.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, labels: Tensor, columns: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Pixels [B, T, 3, H, W], token ids [K, L], caption index [B] or [B, C]."""
        # No attention mask: the text model looks back only, so what pads a text after its end changes nothing.
        scores = self.model(pixel_values=pixel_values, input_ids=input_ids)
        logits: Tensor = scores.logits_per_video
        loss = contrastive_loss(logits, labels) if columns is None else column_loss(logits, labels, columns)
        return {"loss": loss, "logits": logits}


def column_loss(logits: Tensor, labels: Tensor, columns: Tensor) -> Tensor:
    """Mean of `contrastive_loss` over columns: `logits` [B, K], `columns` [K] ascending, `labels` [B, C] into the K."""
    losses = []
    for number in range(labels.shape[1]):
        places = (columns == number).nonzero()[:, 0]
        losses.append(contrastive_loss(logits[:, places], labels[:, number] - places[0]))
    return torch.stack(losses).mean()


def spread_texts(model: "XCLIPModel", input_ids: Tensor, *, floor: float = 0.01) -> None:
    """Set a new model's text projection so that the captions `input_ids` [N, L] point in different directions.

    Drawn at random, a small text tower gives all captions nearly one direction (mean cosine 0.9). Making them wholly
    equal is then the first thing training finds to lower the loss, and nothing is learned after. The projection becomes
    the inverse square root of the features' second moments, eigenvalues below `floor` of the largest damped.
    """
    with torch.no_grad():
        features = model.text_model(input_ids=input_ids).pooler_output
        values, vectors = torch.linalg.eigh(features.T @ features / len(features))
        spread = vectors @ torch.diag((values / values[-1] + floor).rsqrt()) @ vectors.T
        spread /= (features @ spread).std()
        model.text_projection.weight.copy_(spread[: model.text_projection.out_features])


def contrastive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of video-to-text and text-to-video cross-entropy, after CLIP (Radford et al. 2021), `logits` [B, K].

    A caption of several clips has all of them as its targets, with equal shares.
    """
    to_text = cross_entropy(logits, labels)
    belongs = torch.nn.functional.one_hot(labels, logits.shape[1]).T.to(logits.dtype)
    shares = belongs / belongs.sum(dim=1, keepdim=True).clamp(min=1)
    used = belongs.sum(dim=1) > 0
    to_video = cross_entropy(logits.T[used], shares[used])
    return (to_text + to_video) / 2
