"""An InputSpec from what a checkpoint says of its own preprocessing, and a Sampling from its family and the config."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, cast

from vidcls_batch.config import SamplingConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.types import Sampling

# Newer files hold the section of the processor that is for videos or images inside; the first that is there wins.
_SOURCES = (
    ("video_preprocessor_config.json", None),
    ("preprocessor_config.json", None),
    ("processor_config.json", "video_processor"),
    ("processor_config.json", "image_processor"),
)
_RESAMPLE: dict[object, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


def read_input_spec(checkpoint: Checkpoint, *, recipe: InputSpec, any_size: bool = False) -> tuple[InputSpec, str]:
    """The checkpoint's own preprocessing, and the file that says so; keys it leaves out come from `recipe`.

    `recipe` is what the family's authors published, at the network's image size. `any_size`: the network
    takes other sizes too. Raises CheckpointError on preprocessing that does not lead to the network's size, or that is
    of a kind not known here.
    """
    for filename, section in _SOURCES:
        tree = checkpoint.read_json(filename)
        facts = tree if tree is None or section is None else tree.get(section)
        if isinstance(facts, dict):
            spec = _from_processor(facts, recipe, source=f"{checkpoint.name}: {filename}")
            if not any_size and (spec.height, spec.width) != (recipe.height, recipe.width):
                raise CheckpointError(
                    f"{checkpoint.name}: {filename} makes {spec.height}x{spec.width} pixels, but the network's "
                    f"config.json says {recipe.height}x{recipe.width}; one of the two belongs to another checkpoint"
                )
            return spec, filename
    return recipe, "family recipe"


def resolve_sampling(family_default: Sampling, override: SamplingConfig, *, fixed_frames: bool) -> Sampling:
    """The member's sampling: the family's, changed by the config. Raises ConfigError on what cannot be.

    `fixed_frames`: the network takes exactly the default's number of frames.
    """
    num_frames = override.num_frames or family_default.num_frames
    if fixed_frames and num_frames != family_default.num_frames:
        raise ConfigError(
            f"sampling.num_frames is {num_frames}, but this checkpoint takes exactly {family_default.num_frames} frames"
            "; leave num_frames out"
        )
    if override.stride is not None and override.fps is not None:
        raise ConfigError("sampling: give stride or fps, not both")
    rule = override.rule or (
        "stride" if override.stride is not None else "fps" if override.fps is not None else family_default.rule
    )
    stride = override.stride if override.stride is not None else family_default.stride
    fps = override.fps if override.fps is not None else family_default.fps
    for name, value in (("stride", stride), ("fps", fps)):
        if rule == name and value is None:
            raise ConfigError(f"sampling.rule is {rule!r}, which needs sampling.{name}")
        if rule != name and getattr(override, name) is not None:
            raise ConfigError(f"sampling.{name} means nothing with sampling.rule {rule!r}; leave one of them out")
    return Sampling(
        num_frames=num_frames,
        rule=rule,
        stride=stride if rule == "stride" else None,
        fps=fps if rule == "fps" else None,
        views=override.views or family_default.views,
        crops=override.crops or family_default.crops,
    )


def refuse_sampling(override: SamplingConfig) -> None:
    """For a family that sees no frames. Raises ConfigError when the config says which frames it should see."""
    given = sorted(override.model_dump(exclude_none=True))
    if given:
        raise ConfigError(f"sampling.{given[0]}: this family hears and sees no frames; leave sampling out")


def _from_processor(tree: Mapping[str, object], recipe: InputSpec, *, source: str) -> InputSpec:
    spec = replace(
        recipe,
        mean=_rgb(tree.get("image_mean", recipe.mean), source) if tree.get("do_normalize", True) else (0.0, 0.0, 0.0),
        std=_rgb(tree.get("image_std", recipe.std), source) if tree.get("do_normalize", True) else (1.0, 1.0, 1.0),
        scale=_number(tree.get("rescale_factor", recipe.scale), source) if tree.get("do_rescale", True) else 1.0,
    )
    if isinstance(tree.get("offset"), bool):  # ViViT's processor: rescale to [-1, 1] before normalising
        spec = replace(spec, offset=-1.0 if tree["offset"] else 0.0)
    if not tree.get("do_resize", True):
        raise CheckpointError(f"{source}: do_resize is false; this project needs to know the size frames are scaled to")
    if (resample := tree.get("resample")) is not None:
        if resample not in _RESAMPLE:
            raise CheckpointError(f"{source}: resample is {resample!r}; known: 2 (bilinear), 3 (bicubic)")
        spec = replace(spec, resample=_RESAMPLE[resample])
    crops = bool(tree.get("do_center_crop", recipe.fit == "cover"))
    spec = _with_size(spec, tree.get("size"), crops=crops, source=source)
    if crops:
        height, width = _height_width(tree.get("crop_size", {"height": recipe.height, "width": recipe.width}), source)
        spec = replace(spec, height=height, width=width)
    if spec.short_side < max(spec.height, spec.width):
        raise CheckpointError(
            f"{source}: a crop of {spec.height}x{spec.width} does not fit a short side of {spec.short_side}"
        )
    return spec


def _with_size(spec: InputSpec, size: object, *, crops: bool, source: str) -> InputSpec:
    if size is None:
        return spec
    if isinstance(size, int):  # files written before sizes had names
        size = {"shortest_edge": size} if crops else {"height": size, "width": size}
    if isinstance(size, dict) and isinstance(size.get("shortest_edge"), int) and crops:
        return replace(spec, fit="cover", short_side=size["shortest_edge"])
    if isinstance(size, dict) and isinstance(size.get("height"), int) and size.get("height") == size.get("width"):
        side = cast(int, size["height"])
        return replace(spec, fit="stretch", short_side=side, height=side, width=side)
    raise CheckpointError(
        f"{source}: size {size!r} {'with' if crops else 'without'} a centre crop is not known here; known: "
        "shortest_edge with a centre crop, or equal height and width"
    )


def _height_width(value: object, source: str) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    if isinstance(value, dict) and isinstance(value.get("height"), int) and isinstance(value.get("width"), int):
        return (value["height"], value["width"])
    raise CheckpointError(f"{source}: crop_size is {value!r}, expected height and width")


def _rgb(value: object, source: str) -> tuple[float, float, float]:
    if isinstance(value, list | tuple) and len(value) == 3:
        r, g, b = (_number(v, source) for v in value)
        return (r, g, b)
    raise CheckpointError(f"{source}: {value!r} is no value per RGB channel")


def _number(value: object, source: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise CheckpointError(f"{source}: {value!r} is no number")
