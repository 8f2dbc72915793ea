"""Clips per second of each family through its member, against the same network called bare on ready tensors.

    python benchmarks/models.py [--family videomae ...] [--device cpu] [--json FILE]

`bare`: the network on normalised pixels already in its dtype, nothing else; of zero-shot image models transformers' own
`get_image_features`, without any text. `member`: `Member.logits` on uint8 frames, against 400 labels.
`preprocessing`: the share of the member's time that turns frames into pixels. Times are process CPU time on the CPU (so
that a busy machine does not change the ratio) and wall time on CUDA. Rounds of both are interleaved; medians are given.
Weights are random: speed does not depend on them. On a CPU both get memory as classifiers do by default;
`--host-memory`: in another way (`resources.host_memory`). `page faults` are of one call of each: what glibc gives back
to the kernel after a large tensor has to be had anew for the next one.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from contracts.tiny_checkpoints import save_byte_tokenizer, save_processor

from vidcls_batch.config import HostMemory, LabelSetConfig, MemberConfig
from vidcls_batch.models.member import LoadedMember
from vidcls_batch.models.preprocess import preprocess
from vidcls_batch.models.registry import family_facts, load_member, open_family
from vidcls_batch.stages.host_memory import set_host_memory

LABELS = tuple(f"label {i}" for i in range(400))
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}


@dataclass(frozen=True)
class Row:
    """One family's figures."""

    family: str
    precision: str
    clips: int
    bare_clips_per_s: float
    member_clips_per_s: float
    ratio: float
    preprocessing_share: float
    bare_page_faults: int
    member_page_faults: int
    parameters_m: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", nargs="+", default=["videomae", "timesformer", "vivit", "x3d_s", "slow_r50"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--clips", type=int, default=1, help="clips in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frame-size", type=int, default=256, help="side of the decoded frames")
    parser.add_argument("--host-memory", choices=get_args(HostMemory), default="huge_pages", help="of both, on a CPU")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cpu":
        set_host_memory(arguments.host_memory)
    rows = [measure(family, arguments) for family in arguments.family]
    print_table(rows, arguments)
    if arguments.json:
        facts = {"machine": platform.machine(), "torch": torch.__version__, "threads": arguments.threads}
        facts["host memory"] = arguments.host_memory
        arguments.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def measure(family: str, arguments: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        config = save_checkpoint(family, Path(folder))
        config = config.model_copy(update={"precision": arguments.precision})
        member = load_member(config, labels=LABELS, device=arguments.device)
        network = image_features(Path(folder), member) if family in IMAGE_MODELS else member.network
    shape = (arguments.clips, member.input.sampling.num_slots, arguments.frame_size, arguments.frame_size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8).to(arguments.device)
    pixels = to_pixels(member, frames)
    bare, whole, before = interleaved(
        [lambda: network(pixels), lambda: member.logits(frames), lambda: to_pixels(member, frames)],
        rounds=arguments.rounds,
        device=arguments.device,
    )
    return Row(
        family=family,
        precision=str(member.dtype).removeprefix("torch."),
        clips=arguments.clips,
        bare_clips_per_s=arguments.clips / bare,
        member_clips_per_s=arguments.clips / whole,
        ratio=bare / whole,
        preprocessing_share=before / whole,
        bare_page_faults=page_faults(lambda: network(pixels)),
        member_page_faults=page_faults(lambda: member.logits(frames)),
        parameters_m=member.record.num_parameters / 1e6,
    )


def image_features(folder: Path, member: LoadedMember) -> Callable[[torch.Tensor], object]:
    """What a loop of one's own calls: the image half of the checkpoint, on the frames of all clips."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=member.dtype).to(member.device).eval()
    return lambda pixels: model.get_image_features(pixel_values=pixels.flatten(0, 1))


def to_pixels(member: LoadedMember, frames: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        pixels = preprocess(frames.flatten(0, 1), member.input, dtype=member.dtype)
        return pixels.unflatten(0, frames.shape[:2])


def interleaved(calls: Sequence[Callable[[], object]], *, rounds: int, device: str) -> list[float]:
    """Median seconds of each call; one warm-up each, then rounds of all, so that drift hits them alike."""
    times: list[list[float]] = [[] for _ in calls]
    for round_ in range(rounds + 1):
        for call, seconds in zip(calls, times, strict=True):
            started = now(device)
            with torch.inference_mode():
                call()
            elapsed = now(device) - started
            if round_ > 0:
                seconds.append(elapsed)
    return [statistics.median(seconds) for seconds in times]


def page_faults(call: Callable[[], object]) -> int:
    """Of one call: pages of memory that the kernel had to give it anew, 4 KB each."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.inference_mode():
        call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.process_time() if device == "cpu" else time.perf_counter()


def save_checkpoint(family: str, folder: Path) -> MemberConfig:
    """A checkpoint of random weights at the family's published size."""
    labels = LabelSetConfig(labels=LABELS)
    if family in TRANSFORMERS:
        config_class, model_class, size = TRANSFORMERS[family]
        import transformers

        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**size, **NAMES))
        model.save_pretrained(folder)
        return MemberConfig(name="m", family=family, checkpoint=str(folder))
    if family in ZERO_SHOT:
        return save_zero_shot(family, folder)
    implementation = open_family(family)
    if family_facts(family).zero_shot or not hasattr(implementation, "build"):
        raise SystemExit(f"{family} is not measured here; measured: {', '.join([*TRANSFORMERS, *ZERO_SHOT])} "
                         "and the 3D networks")  # fmt: skip
    torch.save(implementation.build(len(LABELS)).state_dict(), folder / "weights.pth")
    return MemberConfig(name="m", family=family, checkpoint=str(folder / "weights.pth"), labels=labels)


def save_zero_shot(family: str, folder: Path) -> MemberConfig:
    """Base size, with a tokenizer of bytes: its texts are embedded once, before anything is timed."""
    import transformers

    vocabulary = save_byte_tokenizer(folder, max_length=64)
    model, text, processor = ZERO_SHOT[family]
    text = text | {"vocab_size": vocabulary, "eos_token_id": vocabulary - 1, "bos_token_id": vocabulary - 2}
    config = getattr(transformers, f"{model}Config")(text_config=text)
    getattr(transformers, f"{model}Model")(config).save_pretrained(folder)
    if processor:
        save_processor(folder, **processor)
    return MemberConfig(name="m", family=family, checkpoint=str(folder))


_CROP = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
_SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "resample": 3}
# family -> transformers' name, what differs in its text half from the default, its processor.
ZERO_SHOT: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "xclip": ("XCLIP", {}, _CROP),
    "clip": ("CLIP", {}, _CROP | {"image_processor_type": "CLIPImageProcessor"}),
    "siglip": ("Siglip", {}, _SQUARE),
    "siglip2": ("Siglip2", {}, {}),
    "metaclip2": ("MetaClip2", {}, _CROP | {"image_processor_type": "CLIPImageProcessor"}),
}
IMAGE_MODELS = ("clip", "siglip", "metaclip2")

# family -> configuration class, model class, what differs from transformers' defaults (its base sizes).
TRANSFORMERS: dict[str, tuple[str, str, dict[str, object]]] = {
    "videomae": ("VideoMAEConfig", "VideoMAEForVideoClassification", {}),
    "timesformer": ("TimesformerConfig", "TimesformerForVideoClassification", {}),
    "vivit": ("VivitConfig", "VivitForVideoClassification", {}),
    "vjepa2": ("VJEPA2Config", "VJEPA2ForVideoClassification", {"frames_per_clip": 16}),
}


def print_table(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    print(
        f"{arguments.device}, torch {torch.__version__}, {arguments.threads} threads, frames of {arguments.frame_size}x"
        f"{arguments.frame_size}, host memory {arguments.host_memory} for both\n\n"
        "| family | parameters | precision | bare clips/s | member clips/s | member / bare | preprocessing "
        "| page faults, bare, member |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for row in rows:
        print(
            f"| {row.family} | {row.parameters_m:.1f} M | {row.precision} | {row.bare_clips_per_s:.2f} | "
            f"{row.member_clips_per_s:.2f} | {row.ratio:.3f} | {row.preprocessing_share:.1%} | "
            f"{row.bare_page_faults:,}, {row.member_page_faults:,} |"
        )


if __name__ == "__main__":
    main()
