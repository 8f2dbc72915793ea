"""The training loop: the Trainer of transformers, told what this project needs of it."""

import tempfile
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from vidcls_batch.training.clips import ClipBatches, keep_batch
from vidcls_batch.training.config import OptimizationConfig

if TYPE_CHECKING:
    from transformers import EvalPrediction


def train_model(model: nn.Module, *, train: ClipBatches, evaluation: ClipBatches, config: OptimizationConfig) -> float:
    """Train `model` in place; returns the share of `evaluation` whose highest logit is the right one.

    `model` takes the batches' tensors by name and gives `loss` and `logits` [B, K].
    """
    from transformers import Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=config.steps,
            per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            label_smoothing_factor=config.label_smoothing,
            seed=config.seed,
            logging_steps=config.log_every,
            eval_strategy="no" if config.evaluate_every is None else "steps",
            eval_steps=config.evaluate_every,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,  # the batches are ours and hold just what the model takes
            dataloader_drop_last=len(train) >= config.batch_size,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            data_collator=keep_batch,
            train_dataset=train,
            eval_dataset=evaluation,
            compute_metrics=_accuracy,
            optimizers=(_optimizer(model, config), None),
        )
        trainer.train()
        # Only training may leave out an incomplete batch; the Trainer has one setting for both.
        trainer.args.dataloader_drop_last = False
        return float(trainer.evaluate()["eval_accuracy"])


def _optimizer(model: nn.Module, config: OptimizationConfig) -> torch.optim.AdamW:
    """AdamW; matrices decay, the longest prefix in `learning_rate_factors` sets a weight's learning rate."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        # A ContrastiveModel holds the model whose names people know as its `model`.
        known_as = name.removeprefix("model.")
        prefixes = [prefix for prefix in config.learning_rate_factors if known_as.startswith(prefix)]
        factor = config.learning_rate_factors[max(prefixes, key=len)] if prefixes else 1.0
        if factor == 0:
            parameter.requires_grad_(False)  # or its gradient would still count in the clipping of all
        else:
            groups[factor, parameter.ndim > 1].append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": config.learning_rate * factor,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (factor, decays), parameters in groups.items()
        ]
    )


def _accuracy(prediction: "EvalPrediction") -> dict[str, float]:
    return {"accuracy": float(np.mean(np.argmax(prediction.predictions, axis=-1) == prediction.label_ids))}
