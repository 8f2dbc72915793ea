"""A small BPE tokenizer of CLIP's kind, learned from a data set's own captions."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizerFast

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def train_clip_tokenizer(texts: Iterable[str], *, vocab_size: int, max_length: int) -> "CLIPTokenizerFast":
    """A tokenizer whose merges come from `texts`; text of other words still has tokens, one per byte.

    The end token gets the highest id: CLIP and X-CLIP read a text's embedding where the id is highest.
    """
    from transformers import CLIPTokenizerFast

    vocabulary, merges = _learn_merges(texts, vocab_size=vocab_size)
    return CLIPTokenizerFast(vocab=vocabulary, merges=merges, model_max_length=max_length)


def _learn_merges(texts: Iterable[str], *, vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, end_of_word_suffix=WORD_END, initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(sorted(set(texts)), trainer)
    model = json.loads(learner.to_str())["model"]
    # The learner knows only the word ends it met; the tokenizer needs one for each byte.
    tokens = [*alphabet, *(byte + WORD_END for byte in alphabet)]
    learned = sorted(model["vocab"], key=model["vocab"].__getitem__)
    tokens += [token for token in learned if token not in set(tokens)]
    tokens += [START, END]
    return {token: index for index, token in enumerate(tokens)}, [(left, right) for left, right in model["merges"]]
