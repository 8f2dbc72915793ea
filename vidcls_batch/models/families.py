"""The table of model families: where their code is and what their authors published. A new family is one row here."""

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """One published size of a family and what its authors report."""

    name: str
    parameters_m: float  # millions
    gflops_per_view: float | None  # multiply-adds counted as one, as the papers do
    views: str  # temporal x spatial views behind the accuracy
    k400_top1: float | None  # percent; None where none was published
    source: str  # where the figures are from


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """One row: where a family's code is and what `vidcls models` prints of it."""

    family: str
    module: str  # offers `FAMILY`
    zero_shot: bool
    sampling: str  # default, for people
    size: int
    licence: str | None  # of the hub weights where the publisher states one
    hub_prefixes: tuple[str, ...]  # hub ids that `licence` is known to hold for start like this
    extra: str | None  # of this package, without which the family does not run
    needs: tuple[str, ...]  # importable modules that the extra brings
    models: tuple[PublishedModel, ...]

    @property
    def available(self) -> bool:
        """Whether what the family needs is installed."""
        return all(find_spec(module) is not None for module in self.needs)


FAMILIES: tuple[FamilyFacts, ...] = (
    FamilyFacts(
        family="videomae",
        module="vidcls_batch.models.videomae",
        zero_shot=False,
        sampling="16 frames, stride 4",
        size=224,
        licence="CC-BY-NC-4.0",
        hub_prefixes=("MCG-NJU/videomae",),
        extra=None,
        needs=(),
        models=(
            PublishedModel("VideoMAE-B", 87, 180, "5x3", 81.5, "arXiv:2203.12602 table 6"),
            PublishedModel("VideoMAE-L", 305, 597, "5x3", 85.2, "arXiv:2203.12602 table 6"),
        ),
    ),
    FamilyFacts(
        family="timesformer",
        module="vidcls_batch.models.timesformer",
        zero_shot=False,
        sampling="8 frames, stride 32",
        size=224,
        licence="CC-BY-NC-4.0",
        hub_prefixes=("facebook/timesformer",),
        extra=None,
        needs=(),
        models=(PublishedModel("TimeSformer", 121.4, 197, "1x3", 78.0, "arXiv:2102.05095 tables 2 and 5"),),
    ),
    FamilyFacts(
        family="xclip",
        module="vidcls_batch.models.xclip",
        zero_shot=True,
        sampling="8 frames, spread over the clip",
        size=224,
        licence="MIT",
        hub_prefixes=("microsoft/xclip",),
        extra=None,
        needs=(),
        models=(
            PublishedModel("X-CLIP-B/32 8 frames", 197, 39, "4x3", 80.4, "arXiv:2208.02816 table 1 (fine-tuned)"),
            PublishedModel("X-CLIP-B/16 8 frames", 195, 145, "4x3", 83.8, "arXiv:2208.02816 table 1 (fine-tuned)"),
        ),
    ),
)
