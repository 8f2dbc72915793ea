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
    code: str  # `module:attribute` of its Family
    sampling: str  # default, for people
    size: int
    models: tuple[PublishedModel, ...]
    zero_shot: bool = False
    licence: str | None = None  # of the published weights, where the publisher states one
    hub_prefixes: tuple[str, ...] = ()  # hub ids that `licence` is known to hold for start like this
    extra: str | None = None  # of this package, without which the family does not run
    needs: tuple[str, ...] = ()  # importable modules that the extra brings

    @property
    def available(self) -> bool:
        """Whether what the family needs is installed."""
        return all(find_spec(module) is not None for module in self.needs)


FAMILIES: tuple[FamilyFacts, ...] = (
    FamilyFacts(
        family="videomae",
        code="vidcls_batch.models.videomae:FAMILY",
        sampling="16 frames, stride 4",
        size=224,
        licence="CC-BY-NC-4.0",
        hub_prefixes=("MCG-NJU/videomae",),
        models=(
            PublishedModel("VideoMAE-B", 87, 180, "5x3", 81.5, "arXiv:2203.12602 table 6"),
            PublishedModel("VideoMAE-L", 305, 597, "5x3", 85.2, "arXiv:2203.12602 table 6"),
        ),
    ),
    FamilyFacts(
        family="timesformer",
        code="vidcls_batch.models.timesformer:FAMILY",
        sampling="8 frames, stride 32",
        size=224,
        licence="CC-BY-NC-4.0",
        hub_prefixes=("facebook/timesformer",),
        models=(
            PublishedModel("TimeSformer", 121.4, 197, "1x3", 77.9, "github.com/facebookresearch/TimeSformer model zoo"),
        ),
    ),
    FamilyFacts(
        family="vivit",
        code="vidcls_batch.models.vivit:FAMILY",
        sampling="32 frames, stride 2",
        size=224,
        licence="MIT",
        hub_prefixes=("google/vivit",),
        models=(PublishedModel("ViViT-B/16x2", 88.9, 455.2, "4x3", 80.0, "arXiv:2103.15691 table 2"),),
    ),
    FamilyFacts(
        family="vjepa2",
        code="vidcls_batch.models.vjepa2:FAMILY",
        sampling="frames of the checkpoint, stride 4",
        size=256,
        licence="MIT",
        hub_prefixes=("facebook/vjepa2",),
        models=(PublishedModel("V-JEPA 2 ViT-L", 375, None, "8x3", 85.1, "arXiv:2506.09985 table 4 (probe)"),),
    ),
    FamilyFacts(
        family="videoprism",
        code="vidcls_batch.models.videoprism:CLASSIFIER",
        sampling="16 frames, spread over the clip",
        size=288,
        licence="Apache-2.0",
        hub_prefixes=("google/videoprism",),
        models=(PublishedModel("VideoPrism-B", 121, None, "4x3", 84.2, "arXiv:2402.13217 table 2 (probe)"),),
    ),
    FamilyFacts(
        family="xclip",
        code="vidcls_batch.models.xclip:FAMILY",
        sampling="8 frames, spread over the clip",
        size=224,
        zero_shot=True,
        licence="MIT",
        hub_prefixes=("microsoft/xclip",),
        models=(
            PublishedModel("X-CLIP-B/32 8 frames", 197, 39, "4x3", 80.4, "arXiv:2208.02816 table 1 (fine-tuned)"),
            PublishedModel("X-CLIP-B/16 8 frames", 195, 145, "4x3", 83.8, "arXiv:2208.02816 table 1 (fine-tuned)"),
        ),
    ),
    FamilyFacts(
        family="clip",
        code="vidcls_batch.models.clip:FAMILY",
        sampling="8 frames, spread over the clip",
        size=224,
        zero_shot=True,
        models=(PublishedModel("CLIP-B/32", 151, None, "1x1", None, "arXiv:2103.00020; counted here"),),
    ),
    FamilyFacts(
        family="siglip",
        code="vidcls_batch.models.siglip:SIGLIP",
        sampling="8 frames, spread over the clip",
        size=224,
        zero_shot=True,
        licence="Apache-2.0",
        hub_prefixes=("google/siglip-",),
        models=(PublishedModel("SigLIP-B/16", 203, None, "1x1", None, "arXiv:2303.15343; counted here"),),
    ),
    FamilyFacts(
        family="siglip2",
        code="vidcls_batch.models.siglip:SIGLIP2",
        sampling="8 frames, spread over the clip",
        size=224,
        zero_shot=True,
        licence="Apache-2.0",
        hub_prefixes=("google/siglip2-",),
        models=(PublishedModel("SigLIP 2 B/16", 375, None, "1x1", None, "arXiv:2502.14786; counted here"),),
    ),
    FamilyFacts(
        family="metaclip2",
        code="vidcls_batch.models.metaclip2:FAMILY",
        sampling="8 frames, spread over the clip",
        size=224,
        zero_shot=True,
        licence="CC-BY-NC-4.0",
        hub_prefixes=("facebook/metaclip-2",),
        models=(PublishedModel("MetaCLIP 2 B/32", 253, None, "1x1", None, "arXiv:2507.22062; counted here"),),
    ),
    FamilyFacts(
        family="videoprism_lvt",
        code="vidcls_batch.models.videoprism:LVT",
        sampling="16 frames, spread over the clip",
        size=288,
        zero_shot=True,
        licence="Apache-2.0",
        hub_prefixes=("google/videoprism-lvt",),
        models=(PublishedModel("VideoPrism-LvT-B", 248, None, "1x1", None, "arXiv:2402.13217; counted here"),),
    ),
)
