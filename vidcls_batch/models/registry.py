"""From names to models: which family, what a member wants and gives, and the loaded member itself."""

import difflib
import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from vidcls_batch.config import MemberConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.label_sets import load_label_set
from vidcls_batch.models.base import (
    CheckpointRecord,
    Family,
    FamilyDescription,
    MemberDescription,
    TextFamily,
    TextScorer,
)
from vidcls_batch.models.checkpoints import Checkpoint, CheckpointAccess, open_checkpoint
from vidcls_batch.models.execution import prepare_network, resolve_execution
from vidcls_batch.models.families import FAMILIES, FamilyFacts
from vidcls_batch.models.member import LoadedMember
from vidcls_batch.models.zero_shot import fill_prompts, load_templates
from vidcls_batch.storage import StorageOptions

if TYPE_CHECKING:
    from torch import Tensor


def list_families() -> list[FamilyFacts]:
    """All families, in the table's order."""
    return list(FAMILIES)


def family_facts(family: str) -> FamilyFacts:
    """The row of a family; `package.module:attribute` is a family of one's own, without a row.

    Raises ConfigError with a suggestion on a name that has none.
    """
    by_name = {facts.family: facts for facts in FAMILIES}
    if ":" in family:
        return FamilyFacts(family=family, code=family, sampling="its own", size=None, models=())
    if family not in by_name:
        near = difflib.get_close_matches(family, by_name, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"Unknown model family {family!r}.{hint} Known: {', '.join(by_name)}. See all: vidcls models")
    return by_name[family]


def open_family(family: str) -> Family:
    """Import a family's code. Raises ConfigError on an unknown family or one whose extra is not installed."""
    facts = family_facts(family)
    require_modules(f"Family {family!r}", needs=facts.needs, extra=facts.extra)
    module, _, attribute = facts.code.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError, AttributeError) as error:
        if facts.code != family:
            raise
        raise ConfigError(
            f"Family {family!r} cannot be imported: {error}. It must be importable on every node"
        ) from error
    if not (hasattr(found, "describe") and hasattr(found, "load")):
        raise ConfigError(f"Family {family!r} is a {type(found).__name__} without describe() and load()")
    return cast(Family, found)


def require_modules(what: str, *, needs: Sequence[str], extra: str | None) -> None:
    """Raise ConfigError that says what to install when one of the modules is not there."""
    missing = [module for module in needs if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{what} needs {', '.join(missing)}; install it with: pip install 'vidcls-batch[{extra}]'")


def describe_member(
    config: MemberConfig, *, labels: tuple[str, ...], access: CheckpointAccess | None = None
) -> MemberDescription:
    """What a member wants and gives, read from its checkpoint's small files; `labels` are the run's.

    Raises ConfigError or CheckpointError, before anything heavy starts.
    """
    checkpoint = open_checkpoint(config.checkpoint, revision=config.revision, weights=False, access=access)
    return _describe(config, checkpoint, run_labels=labels)


def pinned(config: MemberConfig, description: MemberDescription) -> MemberConfig:
    """The same member at the very revision that was described, so that all actors load one and the same."""
    is_hub = description.revision is not None and "://" not in config.checkpoint
    return config.model_copy(update={"revision": description.revision}) if is_hub else config


def load_member(
    config: MemberConfig,
    *,
    labels: tuple[str, ...],
    device: str,
    aliases: tuple[tuple[str, ...], ...] = (),
    access: CheckpointAccess | None = None,
) -> LoadedMember:
    """Load a member's weights onto `device` (`cpu`, `cuda`, `cuda:1`); `labels` are the run's, `aliases` other names of
    each for zero-shot families.

    Raises ConfigError or CheckpointError. Sets no global state: threads and autotuning are the caller's.
    """
    checkpoint = open_checkpoint(config.checkpoint, revision=config.revision, access=access)
    description = _describe(config, checkpoint, run_labels=labels)
    execution = resolve_execution(config, device=device)
    dtype = execution.dtype
    texts = member_texts(config, description, labels=labels, aliases=aliases)
    loaded = open_family(config.family).load(checkpoint, texts=texts, device=device, dtype=dtype)
    if loaded.dtype is not None and loaded.dtype != dtype:
        if config.precision != "auto":
            raise ConfigError(
                f"members.{config.name}.precision is {config.precision}, but family {config.family} computes in "
                f"{str(loaded.dtype).removeprefix('torch.')}; leave precision out"
            )
        dtype = loaded.dtype
    if loaded.num_outputs is not None:
        _check_label_count(config, description.labels, num_outputs=loaded.num_outputs)
    return LoadedMember(
        name=config.name,
        input=description.input,
        labels=description.labels,
        record=CheckpointRecord(
            checkpoint=config.checkpoint,
            revision=description.revision,
            weights_sha256=checkpoint.weights_sha256(),
            licence=description.licence,
            num_parameters=loaded.num_parameters,
        ),
        device=device,
        dtype=dtype,
        network=prepare_network(loaded, execution, description.input, name=config.name, device=device),
        sound=description.sound,
    )


def member_texts(
    config: MemberConfig,
    description: MemberDescription,
    *,
    labels: tuple[str, ...],
    aliases: tuple[tuple[str, ...], ...] = (),
) -> tuple[tuple[str, ...], ...]:
    """The texts behind each output of a zero-shot member: templates x names per label, then each negative prompt.

    Empty for a trained head.
    """
    if not description.zero_shot:
        return ()
    names = [(label, *others) for label, others in zip(labels, aliases or ((),) * len(labels), strict=True)]
    return (*fill_prompts(names, description.prompts), *((text,) for text in config.negative_prompts))


def embed_label_names(
    config: MemberConfig, names: Sequence[Sequence[str]], *, access: CheckpointAccess | None = None
) -> "Tensor":
    """One text embedding float32 [len(names), D] per label, each given by all its names, by a zero-shot member's
    text encoder and prompts. Raises ConfigError for a family that reads no texts, CheckpointError.
    """
    checkpoint = open_checkpoint(config.checkpoint, revision=config.revision, access=access)
    family = open_family(config.family)
    if not hasattr(family, "embed_label_texts"):
        raise ConfigError(f"members.{config.name}: {config.family} has no text encoder; name a zero-shot member")
    texts = fill_prompts(names, _templates(config))
    return cast(TextFamily, family).embed_label_texts(checkpoint, texts=texts)


def load_text_scorer(
    config: MemberConfig,
    *,
    labels: tuple[str, ...],
    aliases: tuple[tuple[str, ...], ...] = (),
    access: CheckpointAccess | None = None,
) -> TextScorer:
    """What scores stored embeddings of a zero-shot member against these labels. Raises ConfigError, CheckpointError."""
    checkpoint = open_checkpoint(config.checkpoint, revision=config.revision, access=access)
    description = _describe(config, checkpoint, run_labels=labels)
    family = open_family(config.family)
    if not description.zero_shot or not hasattr(family, "load_text_scorer"):
        raise ConfigError(f"members.{config.name}: {config.family} does not score texts from embeddings")
    texts = member_texts(config, description, labels=labels, aliases=aliases)
    return cast(TextFamily, family).load_text_scorer(checkpoint, texts=texts)


def checkpoint_access(storage: StorageOptions) -> CheckpointAccess:
    """How a run reaches its checkpoints: through the same stores as its data."""
    return CheckpointAccess(storage=storage)


def weights_sha256(config: MemberConfig, *, access: CheckpointAccess | None = None) -> str:
    """SHA-256 of a member's weight files, fetched when they are not here. Raises CheckpointError."""
    return open_checkpoint(config.checkpoint, revision=config.revision, access=access).weights_sha256()


def _hub_licence(family: str, checkpoint: str) -> str | None:
    """The licence known for a hub checkpoint of this family, None when it is not one of its publisher's."""
    facts = family_facts(family)
    return facts.licence if checkpoint.startswith(facts.hub_prefixes) else None


def _describe(config: MemberConfig, checkpoint: Checkpoint, *, run_labels: tuple[str, ...]) -> MemberDescription:
    where = f"members.{config.name}"
    try:
        facts = open_family(config.family).describe(checkpoint, config.sampling)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    zero_shot = facts.zero_shot
    if zero_shot and config.labels is not None:
        raise ConfigError(f"{where}.labels: {config.family} is zero-shot and scores the run's label_set; leave it out")
    if not zero_shot and config.prompts is not None:
        raise ConfigError(f"{where}.prompts: {config.family} has a trained head and reads no prompts; leave it out")
    if not zero_shot and config.negative_prompts:
        raise ConfigError(f"{where}.negative_prompts: {config.family} has a trained head and reads none; leave it out")
    return MemberDescription(
        name=config.name,
        family=config.family,
        input=facts.input,
        labels=(*run_labels, *config.negative_prompts) if zero_shot else _head_labels(config, facts, where=where),
        zero_shot=zero_shot,
        prompts=_templates(config) if zero_shot else (),
        embedding_dim=facts.embedding_dim,
        checkpoint=config.checkpoint,
        revision=checkpoint.revision,
        licence=checkpoint.card_licence() or facts.licence or _hub_licence(config.family, config.checkpoint),
        preprocessing_from=facts.preprocessing_from,
        context_dim=facts.context_dim,
        sound=facts.sound,
    )


def _templates(config: MemberConfig) -> tuple[str, ...]:
    prompts = config.prompts if config.prompts is not None else family_facts(config.family).prompts
    return load_templates(prompts, where=f"members.{config.name}")


def _head_labels(config: MemberConfig, facts: FamilyDescription, *, where: str) -> tuple[str, ...]:
    labels = load_label_set(config.labels).labels if config.labels is not None else facts.labels
    if labels is None:
        outputs = "outputs" if facts.num_outputs is None else f"{facts.num_outputs} outputs"
        raise CheckpointError(
            f"{where}: {config.checkpoint} does not name its head's {outputs}; give their names in "
            f"order as {where}.labels (a label-set name, a file or a list)"
        )
    if facts.num_outputs is not None:
        _check_label_count(config, labels, num_outputs=facts.num_outputs)
    return labels


def _check_label_count(config: MemberConfig, labels: tuple[str, ...], *, num_outputs: int) -> None:
    if len(labels) != num_outputs:
        raise CheckpointError(
            f"members.{config.name}.labels has {len(labels)} names, but the head of {config.checkpoint} has "
            f"{num_outputs} outputs"
        )
