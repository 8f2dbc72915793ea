"""Loading `save_pretrained` folders through transformers, strictly: every weight of the network comes from the file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, cast

from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.torchvision_import import prepare_transformers

if TYPE_CHECKING:
    from torch import nn

# Buffers that older transformers versions saved and newer ones compute.
_COMPUTED = re.compile(r"(^|\.)position_ids$")
_SHOWN_KEYS = 8


def load_pretrained(checkpoint: Checkpoint, *, model_class: "str | type[nn.Module]") -> "nn.Module":
    """The transformers model (a class by its name there, or one of ours), float32, on the CPU, in eval mode.

    Raises CheckpointError that names the keys at fault.

    transformers itself fills missing keys with random numbers: a base checkpoint would get a random head.
    """
    prepare_transformers()
    import torch
    import transformers
    from safetensors import SafetensorError

    checkpoint.weight_files()  # says what it looked for when there are none
    found: Any = getattr(transformers, model_class) if isinstance(model_class, str) else model_class
    name, load = found.__name__, found.from_pretrained
    try:
        with _quiet_transformers():
            model, report = load(
                checkpoint.path,
                dtype=torch.float32,
                local_files_only=True,
                weights_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that the report names them; any is an error below
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, UnpicklingError) as error:
        raise CheckpointError(f"{checkpoint.name}: {name} cannot load it: {error}") from error
    problems = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(key for key in report["unexpected_keys"] if not _COMPUTED.search(key)),
        "of another shape": sorted(
            f"{key} {list(file)} for {list(net)}" for key, file, net in report["mismatched_keys"]
        ),
    }
    if any(problems.values()):
        raise CheckpointError(f"{checkpoint.name} does not fit {name}: {describe_key_problems(problems)}")
    return cast("nn.Module", model.eval().requires_grad_(False))


def describe_key_problems(problems: dict[str, list[str]]) -> str:
    """`2 keys missing (a, b); 1 key unexpected (c). …` with what to do."""
    parts = []
    for kind, keys in problems.items():
        if keys:
            shown = ", ".join(keys[:_SHOWN_KEYS]) + (", …" if len(keys) > _SHOWN_KEYS else "")
            parts.append(f"{len(keys)} {'key' if len(keys) == 1 else 'keys'} {kind} ({shown})")
    return (
        "; ".join(parts)
        + ". Give a checkpoint fine-tuned for classification in this family; a pre-trained base has no head."
    )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    # Its progress bar and load report go to stderr of every worker; what matters of them is raised above.
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
