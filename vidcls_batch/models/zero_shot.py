"""Labels as text: prompt templates and their tokens, for families that score any label set."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.torchvision_import import prepare_transformers

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_PROMPTS = ("a video of {}",)


def fill_prompts(labels: Iterable[str], templates: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The prompts of each label: `texts[k][p]` is template p with label k.

    >>> fill_prompts(["surfing water"], ("a video of {}", "someone {}"))
    (('a video of surfing water', 'someone surfing water'),)
    """
    return tuple(tuple(template.replace("{}", label) for template in templates) for label in labels)


def tokenize(
    checkpoint: Checkpoint, texts: list[str], *, max_length: int, pad_to_max: bool = False
) -> tuple["Tensor", "Tensor"]:
    """Token ids and attention mask, both int64 [len(texts), L], by the checkpoint's own tokenizer.

    L is the longest text's, or `max_length` with `pad_to_max`; longer texts are cut. Raises CheckpointError.
    """
    prepare_transformers()
    import torch
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise CheckpointError(f"{checkpoint.name}: its tokenizer cannot be loaded: {error}") from error
    tokens = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        padding="max_length" if pad_to_max else True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return torch.as_tensor(tokens["input_ids"]), torch.as_tensor(tokens["attention_mask"])
