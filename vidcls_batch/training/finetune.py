"""A fine-tuning job from its config to a saved checkpoint and its accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from vidcls_batch.errors import ManifestError
from vidcls_batch.label_sets import load_label_set
from vidcls_batch.training.augment import augment
from vidcls_batch.training.checkpoint_folder import ModelCard, save_checkpoint
from vidcls_batch.training.clip_cache import CachedClips, cache_clips, read_rows, select_rows
from vidcls_batch.training.clips import ClipBatches
from vidcls_batch.training.config import DataConfig, FinetuneConfig
from vidcls_batch.training.contrastive import ContrastiveModel
from vidcls_batch.training.start import Start, prepare_start
from vidcls_batch.training.targets import CaptionTargets, ClassTargets, Targets, tokenize
from vidcls_batch.training.trainer import train_model
from vidcls_batch.types import FrameRequest


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """Where the checkpoint lies and how often its first choice is right on the evaluation clips."""

    checkpoint: Path
    accuracy: float
    clips_trained: int
    clips_evaluated: int


def finetune(config: FinetuneConfig) -> FinetuneResult:
    """Train, evaluate and save. Raises ConfigError, CheckpointError or ManifestError before the first step."""
    torch.manual_seed(config.optimization.seed)
    generator = torch.Generator().manual_seed(config.optimization.seed)
    labels = load_label_set(config.label_set).labels
    start = prepare_start(config.model, labels=labels, texts=_vocabulary_texts(config.data), folder=config.output.path)
    train = _cached(config.data.train, config.data, start)
    train = train.take(select_rows(train.rows, config.data.where))
    evaluation = _cached(config.data.evaluation, config.data, start)
    model, learns, answers = _task(
        config, start, labels=labels, train=train, evaluation=evaluation, generator=generator
    )
    accuracy = train_model(
        model,
        train=ClipBatches(
            train,
            spec=start.spec,
            targets=learns,
            change=partial(augment, config=config.augmentation, generator=generator),
            heard=start.heard,
        ),
        evaluation=ClipBatches(evaluation, spec=start.spec, targets=answers, heard=start.heard),
        config=config.optimization,
    )
    result = FinetuneResult(
        checkpoint=Path(config.output.path),
        accuracy=accuracy,
        clips_trained=len(train.rows),
        clips_evaluated=len(evaluation.rows),
    )
    save_checkpoint(
        start.model,
        result.checkpoint,
        tokenizer=start.tokenizer,
        half_precision=config.output.half_precision,
        card=_card(config, result),
    )
    return result


def _task(
    config: FinetuneConfig,
    start: Start,
    *,
    labels: Sequence[str],
    train: CachedClips,
    evaluation: CachedClips,
    generator: torch.Generator,
) -> tuple[nn.Module, Targets, Targets]:
    """The module to train, what it learns from and what it is tested on."""
    answers = _class_ids(evaluation.rows, config.data.label, labels)
    if start.tokenizer is None:
        return start.model, ClassTargets(_class_ids(train.rows, config.data.label, labels)), ClassTargets(answers)
    columns = _caption_columns(train.rows, config.data.captions, config.data.caption_templates)
    learns = CaptionTargets(
        columns,
        tokens=tokenize([text for column in columns for texts in column for text in texts], start.tokenizer),
        generator=generator,
    )
    prompts = [config.prompt.replace("{}", label) for label in labels]
    tokens = tokenize(prompts, start.tokenizer)
    names = torch.stack([tokens[prompt] for prompt in prompts])
    return ContrastiveModel(start.model), learns, ClassTargets(answers, input_ids=names)


def _cached(manifest: str, data: DataConfig, start: Start) -> CachedClips:
    spec, sounds = start.spec, () if start.heard is None else (start.heard.window,)
    side = max(spec.short_side, spec.height, spec.width)
    return cache_clips(
        manifest,
        request=FrameRequest(samplings=(spec.sampling,), height=side, width=side, sounds=sounds),
        folder=data.cache,
        uri_column=data.uri,
        threads=data.decode_threads,
    )


def _vocabulary_texts(data: DataConfig) -> list[str]:
    rows = read_rows(data.train)
    rows = rows[select_rows(rows, data.where)]
    columns = _caption_columns(rows, data.vocabulary or data.captions, data.caption_templates)
    return sorted({text for column in columns for texts in column for text in texts})


def _caption_columns(rows: pd.DataFrame, columns: Sequence[str], templates: Sequence[str]) -> list[list[list[str]]]:
    """Each column's captions in each template: [column][template][clip]."""
    return [
        [[template.replace("{}", str(caption)) for caption in _column(rows, column)] for template in templates]
        for column in columns
    ]


def _class_ids(rows: pd.DataFrame, column: str, labels: Sequence[str]) -> list[int]:
    ids = {label: index for index, label in enumerate(labels)}
    names = _column(rows, column).tolist()
    if unknown := sorted({str(name) for name in names if name not in ids}):
        raise ManifestError(f"column {column!r} has labels that are not in the label set: {', '.join(unknown[:5])}")
    return [ids[name] for name in names]


def _column(rows: pd.DataFrame, column: str) -> "pd.Series[str]":
    if column not in rows.columns:
        raise ManifestError(f"no column {column!r} in the manifest; there are {', '.join(map(str, rows.columns))}")
    return rows[column]


def _card(config: FinetuneConfig, result: FinetuneResult) -> ModelCard:
    start = config.model.checkpoint or "random weights"
    return ModelCard(
        title=f"{config.model.family}, {Path(config.output.path).name}",
        licence=config.output.licence,
        trained_on=f"Trained by vidcls-batch from {start} on {result.clips_trained} clips, {config.optimization.steps} "
        f"steps of {config.optimization.batch_size}.",
        accuracy=f"Top-1 accuracy on {result.clips_evaluated} other clips: {result.accuracy:.1%}.",
        command=config.output.command,
    )
