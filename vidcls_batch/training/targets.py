"""What a batch of clips should come out as: class ids, or the captions true of each clip."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Targets = Callable[[Sequence[int]], dict[str, Tensor]]
"""Indices of a batch's clips -> what the model needs beside the pixels; `labels` int64 [B] always."""


class ClassTargets:
    """Class ids; with `input_ids` int64 [K, L], the classes as texts, for a video-text model."""

    def __init__(self, class_ids: Sequence[int], *, input_ids: Tensor | None = None) -> None:
        self._class_ids = torch.tensor(class_ids)
        self._texts = {} if input_ids is None else {"input_ids": input_ids}

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`labels` int64 [B], the class ids."""
        return {**self._texts, "labels": self._class_ids[list(indices)]}


class CaptionTargets:
    """Draws one column of captions for a batch; gives its distinct captions' tokens and each clip's caption index.

    Columns may describe a clip at different lengths ("a red star moving left", "a shape moving left"). Mixed in one
    batch, a true short caption would count as wrong for a clip that carries its long one; so columns do not mix.
    """

    def __init__(
        self, columns: Sequence[Sequence[str]], *, tokens: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        self._columns = columns
        self._tokens = tokens
        self._generator = generator

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`input_ids` int64 [captions, L] and `labels` int64 [B], the place of each clip's caption among them."""
        drawn = int(torch.randint(len(self._columns), (1,), generator=self._generator))
        captions = [self._columns[drawn][i] for i in indices]
        distinct = sorted(set(captions))
        place = {caption: index for index, caption in enumerate(distinct)}
        return {
            "input_ids": torch.stack([self._tokens[c] for c in distinct]),
            "labels": torch.tensor([place[c] for c in captions]),
        }


def tokenize(texts: Iterable[str], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Tensor]:
    """Token ids int64 [L] of each distinct text, all padded to the tokenizer's longest."""
    distinct = sorted(set(texts))
    tokens = tokenizer(distinct, padding="max_length", truncation=True, return_tensors="pt")
    return dict(zip(distinct, tokens["input_ids"], strict=True))
