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
    size: int | None  # side of the frames the network sees; None: its checkpoint says
    models: tuple[PublishedModel, ...]
    zero_shot: bool = False
    sees: bool = True  # frames
    hears: bool = False  # sound
    prompts: str = "single"  # template set of a zero-shot family, where the config names none
    licence: str | None = None  # of the published weights, where the publisher states one
    hub_prefixes: tuple[str, ...] = ()  # hub ids that `licence` is known to hold for start like this
    extra: str | None = None  # of this package, without which the family does not run
    needs: tuple[str, ...] = ()  # importable modules that the extra brings
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def available(self) -> bool:
        """Whether what the family needs is installed."""
        return all(find_spec(module) is not None for module in self.needs)


_PYTORCHVIDEO = "github.com/facebookresearch/pytorchvideo model zoo"
_UNIFORMER = "github.com/Sense-X/UniFormer model zoo"
# Its GFLOPs are of 16 frames whatever the weights were made for; those here are of the frames of the recipe.
_TORCHVISION = "torchvision 0.28 weights metadata"

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
        models=(
            PublishedModel("V-JEPA 2 ViT-L 16 frames", 376, 935, "8x3", 85.1, "arXiv:2506.09985 table 4; size counted"),
        ),
    ),
    FamilyFacts(
        family="videoprism",
        code="vidcls_batch.models.videoprism:CLASSIFIER",
        sampling="16 frames, spread over the clip",
        size=288,
        licence="Apache-2.0",
        hub_prefixes=("google/videoprism",),
        models=(PublishedModel("VideoPrism-B", 124, 506, "4x3", 84.2, "arXiv:2402.13217 table 2; size counted"),),
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
        models=(PublishedModel("CLIP-B/32", 151, None, "1x1", None, "arXiv:2103.00020; size counted"),),
    ),
    FamilyFacts(
        family="siglip",
        code="vidcls_batch.models.siglip:SIGLIP",
        sampling="8 frames, spread over the clip",
        size=224,
        zero_shot=True,
        licence="Apache-2.0",
        hub_prefixes=("google/siglip-",),
        models=(PublishedModel("SigLIP-B/16", 203, None, "1x1", None, "arXiv:2303.15343; size counted"),),
    ),
    FamilyFacts(
        family="siglip2",
        code="vidcls_batch.models.siglip:SIGLIP2",
        sampling="8 frames, spread over the clip",
        size=224,
        zero_shot=True,
        licence="Apache-2.0",
        hub_prefixes=("google/siglip2-",),
        models=(PublishedModel("SigLIP 2 B/16", 375, None, "1x1", None, "arXiv:2502.14786; size counted"),),
    ),
    FamilyFacts(
        family="metaclip2",
        code="vidcls_batch.models.metaclip2:FAMILY",
        sampling="8 frames, spread over the clip",
        size=224,
        zero_shot=True,
        licence="CC-BY-NC-4.0",
        hub_prefixes=("facebook/metaclip-2",),
        models=(
            PublishedModel(
                "MetaCLIP 2 B/32", 588, None, "1x1", None, "arXiv:2507.22062; size counted (901,629 tokens)"
            ),
        ),
    ),
    FamilyFacts(
        family="videoprism_lvt",
        code="vidcls_batch.models.videoprism:LVT",
        sampling="16 frames, spread over the clip",
        size=288,
        zero_shot=True,
        licence="Apache-2.0",
        hub_prefixes=("google/videoprism-lvt",),
        models=(PublishedModel("VideoPrism-LvT-B", 248, None, "1x1", None, "arXiv:2402.13217; size counted"),),
    ),
    FamilyFacts(
        family="slowfast_r50",
        code="vidcls_batch.models.pytorchvideo_zoo:SLOWFAST_R50",
        sampling="32 frames, stride 2 (slow pathway 8)",
        size=256,
        models=(PublishedModel("SlowFast R50 8x8", 34.6, 65.7, "10x3", 76.9, _PYTORCHVIDEO),),
    ),
    FamilyFacts(
        family="slowfast_r101",
        code="vidcls_batch.models.pytorchvideo_zoo:SLOWFAST_R101",
        sampling="32 frames, stride 2 (slow pathway 8)",
        size=256,
        models=(PublishedModel("SlowFast R101 8x8", 62.8, 127.2, "10x3", 77.9, _PYTORCHVIDEO),),
    ),
    FamilyFacts(
        family="slow_r50",
        code="vidcls_batch.models.pytorchvideo_zoo:SLOW_R50",
        sampling="8 frames, stride 8",
        size=256,
        models=(PublishedModel("Slow R50 8x8", 32.5, 54.5, "10x3", 74.6, _PYTORCHVIDEO),),
    ),
    FamilyFacts(
        family="c2d_r50",
        code="vidcls_batch.models.pytorchvideo_zoo:C2D_R50",
        sampling="8 frames, stride 8",
        size=256,
        models=(PublishedModel("C2D R50 8x8", 24.3, 25.9, "10x3", 71.5, _PYTORCHVIDEO),),
    ),
    FamilyFacts(
        family="i3d_r50",
        code="vidcls_batch.models.pytorchvideo_zoo:I3D_R50",
        sampling="8 frames, stride 8",
        size=256,
        models=(PublishedModel("I3D R50 8x8", 28.0, 37.5, "10x3", 73.3, _PYTORCHVIDEO),),
    ),
    FamilyFacts(
        family="x3d_xs",
        code="vidcls_batch.models.pytorchvideo_zoo:X3D_XS",
        sampling="4 frames, stride 12",
        size=182,
        models=(PublishedModel("X3D-XS", 3.8, 0.91, "10x3", 69.1, _PYTORCHVIDEO),),
    ),
    FamilyFacts(
        family="x3d_s",
        code="vidcls_batch.models.pytorchvideo_zoo:X3D_S",
        sampling="13 frames, stride 6",
        size=182,
        models=(PublishedModel("X3D-S", 3.8, 2.96, "10x3", 73.3, _PYTORCHVIDEO),),
    ),
    FamilyFacts(
        family="x3d_m",
        code="vidcls_batch.models.pytorchvideo_zoo:X3D_M",
        sampling="16 frames, stride 5",
        size=256,
        models=(PublishedModel("X3D-M", 3.8, 6.72, "10x3", 75.9, _PYTORCHVIDEO),),
    ),
    FamilyFacts(
        family="x3d_l",
        code="vidcls_batch.models.pytorchvideo_zoo:X3D_L",
        sampling="16 frames, stride 5",
        size=312,
        models=(
            PublishedModel(
                "X3D-L", 6.2, 18.4, "10x3", 77.5, f"{_PYTORCHVIDEO}; cost counted (its 26.64 are of larger frames)"
            ),
        ),
    ),
    FamilyFacts(
        family="r3d_18",
        code="vidcls_batch.models.torchvision_zoo:R3D_18",
        sampling="16 frames at 15 fps",
        size=112,
        extra="torchvision",
        needs=("torchvision",),
        models=(PublishedModel("R3D-18", 33.4, 40.7, "5x1", 63.2, _TORCHVISION),),
    ),
    FamilyFacts(
        family="mc3_18",
        code="vidcls_batch.models.torchvision_zoo:MC3_18",
        sampling="16 frames at 15 fps",
        size=112,
        extra="torchvision",
        needs=("torchvision",),
        models=(PublishedModel("MC3-18", 11.7, 43.3, "5x1", 64.0, _TORCHVISION),),
    ),
    FamilyFacts(
        family="r2plus1d_18",
        code="vidcls_batch.models.torchvision_zoo:R2PLUS1D_18",
        sampling="16 frames at 15 fps",
        size=112,
        extra="torchvision",
        needs=("torchvision",),
        models=(PublishedModel("R(2+1)D-18", 31.5, 40.5, "5x1", 67.5, _TORCHVISION),),
    ),
    FamilyFacts(
        family="s3d",
        code="vidcls_batch.models.torchvision_zoo:S3D",
        sampling="128 frames at 15 fps",
        size=224,
        extra="torchvision",
        needs=("torchvision",),
        models=(PublishedModel("S3D", 8.3, 143.8, "1x1", 68.4, _TORCHVISION),),
    ),
    FamilyFacts(
        family="mvit_v1_b",
        code="vidcls_batch.models.torchvision_zoo:MVIT_V1_B",
        sampling="16 frames at 7.5 fps",
        size=224,
        extra="torchvision",
        needs=("torchvision",),
        models=(PublishedModel("MViT v1-B", 36.6, 70.6, "5x1", 78.5, _TORCHVISION),),
    ),
    FamilyFacts(
        family="mvit_v2_s",
        code="vidcls_batch.models.torchvision_zoo:MVIT_V2_S",
        sampling="16 frames at 7.5 fps",
        size=224,
        extra="torchvision",
        needs=("torchvision",),
        models=(PublishedModel("MViT v2-S", 34.5, 64.2, "5x1", 80.8, _TORCHVISION),),
    ),
    FamilyFacts(
        family="swin3d_t",
        code="vidcls_batch.models.torchvision_zoo:SWIN3D_T",
        sampling="32 frames at 15 fps",
        size=224,
        extra="torchvision",
        needs=("torchvision",),
        models=(PublishedModel("Video Swin-T", 28.2, 87.8, "12x1", 77.7, _TORCHVISION),),
    ),
    FamilyFacts(
        family="swin3d_s",
        code="vidcls_batch.models.torchvision_zoo:SWIN3D_S",
        sampling="32 frames at 15 fps",
        size=224,
        extra="torchvision",
        needs=("torchvision",),
        models=(PublishedModel("Video Swin-S", 49.8, 165.7, "12x1", 79.5, _TORCHVISION),),
    ),
    FamilyFacts(
        family="swin3d_b",
        code="vidcls_batch.models.torchvision_zoo:SWIN3D_B",
        sampling="32 frames at 15 fps",
        size=224,
        extra="torchvision",
        needs=("torchvision",),
        models=(PublishedModel("Video Swin-B", 88.0, 281.3, "12x1", 79.4, _TORCHVISION),),
    ),
    FamilyFacts(
        family="uniformer_s",
        code="vidcls_batch.models.uniformer:SMALL",
        sampling="16 frames, stride 4",
        size=224,
        models=(PublishedModel("UniFormer-S 16x4", 21.4, 41.8, "4x1", 80.8, _UNIFORMER),),
    ),
    FamilyFacts(
        family="uniformer_b",
        code="vidcls_batch.models.uniformer:BASE",
        sampling="32 frames, stride 4",
        size=224,
        models=(PublishedModel("UniFormer-B 32x4", 49.8, 259.0, "4x1", 82.9, _UNIFORMER),),
    ),
    FamilyFacts(
        family="c3d",
        code="vidcls_batch.models.c3d:FAMILY",
        sampling="16 frames, stride 1",
        size=112,
        models=(PublishedModel("C3D", 78.4, 38.5, "10x1", None, "github.com/open-mmlab/mmaction2 (UCF101 83.3)"),),
    ),
    FamilyFacts(
        family="ast",
        code="vidcls_batch.models.ast_audio:FAMILY",
        sampling="10.24 s of sound at 16 kHz",
        size=None,
        sees=False,
        hears=True,
        licence="BSD-3-Clause",
        hub_prefixes=("MIT/ast-",),
        models=(
            PublishedModel("AST-B", 86.6, None, "1x1", None, "arXiv:2104.01778 (AudioSet mAP 45.9); size counted"),
        ),
    ),
    FamilyFacts(
        family="clap",
        code="vidcls_batch.models.clap:FAMILY",
        sampling="10 s of sound at 48 kHz",
        size=None,
        zero_shot=True,
        sees=False,
        hears=True,
        prompts="sound",
        licence="Apache-2.0",
        hub_prefixes=("laion/clap-", "laion/larger_clap"),
        models=(PublishedModel("CLAP HTS-AT", 153.5, None, "1x1", None, "arXiv:2211.06687; size counted"),),
    ),
    FamilyFacts(
        family="avslowfast_r50",
        code="vidcls_batch.models.av_slowfast:R50",
        sampling="32 frames, stride 2 (slow pathway 8), and 2.06 s of sound",
        size=224,
        hears=True,
        models=(
            PublishedModel(
                "AVSlowFast R50 8x8", 42.3, None, "10x3", None, "arXiv:2001.08740; no published weights, size counted"
            ),
        ),
    ),
    FamilyFacts(
        family="av_transformer",
        code="vidcls_batch.models.av_transformer:FAMILY",
        sampling="frames of the checkpoint, spread over the clip, and sound",
        size=None,
        hears=True,
        models=(),
    ),
    FamilyFacts(
        family="exported",
        code="vidcls_batch.models.exported:EXPORTED",
        sampling="as exported",
        size=None,
        models=(),
    ),
    FamilyFacts(
        family="onnx",
        code="vidcls_batch.models.exported:ONNX",
        sampling="as exported",
        size=None,
        models=(),
        extra="onnx",
        needs=("onnxruntime",),
    ),
    FamilyFacts(
        family="openvino",
        code="vidcls_batch.models.exported:OPENVINO",
        sampling="as exported",
        size=None,
        models=(),
        devices=("cpu",),
        extra="openvino",
        needs=("openvino",),
    ),
    FamilyFacts(
        family="tensorrt",
        code="vidcls_batch.models.exported:TENSORRT",
        sampling="as exported",
        size=None,
        models=(),
        devices=("cuda",),
        extra="onnx",
        needs=("onnxruntime",),
    ),
)
