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
    """Captions of a batch's clips, column by column; equal captions of one column are one text.

    Columns describe a clip at different lengths ("a red star moving left", "a shape moving left"). Mixed in one
    comparison, a true short caption would count as wrong for a clip that carries its long one; so each column is a
    comparison of its own, and one forward pass of the video tower serves them all.
    """

    def __init__(
        self, columns: Sequence[Sequence[Sequence[str]]], *, tokens: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        """`columns[c][w][i]` is wording w of clip i's caption in column c; a batch draws one wording a column."""
        self._columns = columns
        self._tokens = tokens
        self._generator = generator

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`input_ids` int64 [K, L], all columns' distinct captions; `columns` int64 [K], whose they are; `labels` int64
        [B, C], the place of each clip's caption of each column among the K.
        """
        texts: list[Tensor] = []
        columns: list[int] = []
        labels = []
        for number, wordings in enumerate(self._columns):
            drawn = int(torch.randint(len(wordings), (1,), generator=self._generator))
            captions = [wordings[drawn][i] for i in indices]
            place = {caption: len(texts) + k for k, caption in enumerate(sorted(set(captions)))}
            texts += [self._tokens[caption] for caption in place]
            columns += [number] * len(place)
            labels.append(torch.tensor([place[caption] for caption in captions]))
        return {
            "input_ids": torch.stack(texts),
            "columns": torch.tensor(columns),
            "labels": torch.stack(labels, dim=1),
        }


def tokenize(texts: Iterable[str], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Tensor]:
    """Token ids int64 [L] of each distinct text, all padded to the tokenizer's longest."""
    distinct = sorted(set(texts))
    tokens = tokenizer(distinct, padding="max_length", truncation=True, return_tensors="pt")
    return dict(zip(distinct, tokens["input_ids"], strict=True))
