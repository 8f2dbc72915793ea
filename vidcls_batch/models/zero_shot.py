"""Labels as text: prompt templates, their tokens and their averaged embeddings, for families that score any labels."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from vidcls_batch.config import check_templates
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.torchvision_import import prepare_transformers

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_PROMPTS = "single"
# A few texts to token ids and attention mask, both int64 [n, L].
Tokenize = Callable[[list[str]], tuple["Tensor", "Tensor"]]
_TEXTS_AT_ONCE = 256
_CACHE = Path("~/.cache/vidcls-batch/label_texts")


def load_templates(prompts: tuple[str, ...] | str | None, *, where: str = "prompts") -> tuple[str, ...]:
    """Templates as given, of a shipped set by its name, or of a YAML file. Raises ConfigError."""
    if isinstance(prompts, tuple):
        return prompts
    name = prompts or DEFAULT_PROMPTS
    shipped = template_sets()
    source: Traversable | Path = shipped.get(name) or Path(name)
    try:
        tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        known = ", ".join(sorted(shipped))
        raise ConfigError(f"{where}: {name!r} is no template set ({known}) and no readable file: {error}") from error
    templates = tree.get("templates") if isinstance(tree, dict) else None
    if not isinstance(templates, list) or not all(isinstance(t, str) for t in templates):
        raise ConfigError(f"{where}: {name} needs the key `templates`: a list of texts with {{}} for the label")
    try:
        check_templates(templates)
    except ValueError as error:
        raise ConfigError(f"{where}: {name}: {error}") from error
    return tuple(templates)


def template_sets() -> dict[str, Traversable]:
    """The shipped template sets by name."""
    folder = resources.files("vidcls_batch") / "data" / "prompts"
    return {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}


def fill_prompts(names: Iterable[Sequence[str]], templates: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The prompts of each label: every template with each of the label's names.

    >>> fill_prompts([("surfing", "riding waves")], ("a video of {}", "someone {}"))
    (('a video of surfing', 'someone surfing', 'a video of riding waves', 'someone riding waves'),)
    """
    return tuple(tuple(t.replace("{}", name) for name in of_label for t in templates) for of_label in names)


def texts_digest(texts: Sequence[Sequence[str]]) -> str:
    """SHA-256 of all labels' texts in order."""
    return hashlib.sha256(json.dumps([list(t) for t in texts], ensure_ascii=False).encode()).hexdigest()


def embed_labels(
    texts: Sequence[Sequence[str]],
    *,
    embed: Callable[[list[str]], "Tensor"],
    checkpoint: Checkpoint,
    kind: str,
    cache_dir: Path | None = None,
) -> "Tensor":
    """One embedding float32 [K, D] per label: the mean over its texts of what `embed` makes of a few texts [n, D].

    Kept on this machine under a digest of weights, texts and `kind` (how `embed` goes about it), so that not each
    worker embeds thousands of texts again; a cache that cannot be written is done without.
    """
    import torch

    key = hashlib.sha256(f"{checkpoint.weights_sha256()} {kind} {texts_digest(texts)}".encode()).hexdigest()
    path = (cache_dir or _CACHE.expanduser()) / f"{key}.npy"
    if (known := _read_cache(path, labels=len(texts))) is not None:
        return torch.from_numpy(known)
    flat = [text for of_label in texts for text in of_label]
    owner = torch.tensor([k for k, of_label in enumerate(texts) for _ in of_label])
    total: Tensor | None = None
    with torch.inference_mode():
        for start in range(0, len(flat), _TEXTS_AT_ONCE):
            some = embed(flat[start : start + _TEXTS_AT_ONCE]).float().cpu()
            total = torch.zeros(len(texts), some.shape[1]) if total is None else total
            total.index_add_(0, owner[start : start + _TEXTS_AT_ONCE], some)
    if total is None:
        raise ValueError("there are no label texts to embed")
    mean = total / torch.tensor([len(of_label) for of_label in texts], dtype=torch.float32)[:, None]
    _write_cache(path, mean.numpy())
    return mean.clone()  # not an inference tensor: callers may go on with it as they like


def _read_cache(path: Path, *, labels: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None":
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.dtype == np.float32 and found.ndim == 2 and len(found) == labels else None


def _write_cache(path: Path, values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.save(file, values)
        Path(temporary).replace(path)  # another worker sees a whole file or none
    except OSError:
        return


def tokenize(
    checkpoint: Checkpoint, texts: list[str], *, max_length: int, pad_to_max: bool = False
) -> tuple["Tensor", "Tensor"]:
    """Token ids and attention mask, both int64 [len(texts), L], by the checkpoint's own tokenizer.

    L is the longest text's, or `max_length` with `pad_to_max`; longer texts are cut. Raises CheckpointError.
    """
    return open_tokenizer(checkpoint, max_length=max_length, pad_to_max=pad_to_max)(texts)


def open_tokenizer(checkpoint: Checkpoint, *, max_length: int, pad_to_max: bool = False) -> Tokenize:
    """`tokenize` for many calls: the tokenizer's files are read once. Raises CheckpointError."""
    prepare_transformers()
    import torch
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise CheckpointError(f"{checkpoint.name}: its tokenizer cannot be loaded: {error}") from error

    def tokens_of(texts: list[str]) -> tuple["Tensor", "Tensor"]:
        tokens = tokenizer(
            texts,
            truncation=True,
            max_length=max_length,
            padding="max_length" if pad_to_max else True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return torch.as_tensor(tokens["input_ids"]), torch.as_tensor(tokens["attention_mask"])

    return tokens_of
