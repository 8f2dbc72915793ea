"""The models that score each clip, and the frames each of them sees."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from vidcls_batch.config.inputs import LabelSetConfig
from vidcls_batch.config.section import Section
from vidcls_batch.types import SamplingRule


class SamplingConfig(Section):
    """Overrides of the checkpoint's own frame sampling; what is left out comes from the checkpoint's family."""

    num_frames: int | None = Field(None, ge=1, le=256)
    rule: SamplingRule | None = None
    stride: int | None = Field(None, ge=1)
    fps: float | None = Field(None, gt=0)
    views: int | None = Field(None, ge=1, le=64, description="Windows in time whose scores are averaged.")
    crops: Literal[1, 3] | None = Field(
        None, description="3: each view is seen at the start, centre and end of the picture's longer side."
    )


class MemberConfig(Section):
    """One model of the ensemble."""

    name: str = Field(description="Identifier that prefixes the member's columns.", pattern=r"^[a-z][a-z0-9_]*$")
    family: str = Field(
        description="Model family, see `vidcls models`, or your own as package.module:attribute.",
    )
    checkpoint: str = Field(
        description="Hub id, local folder, or fsspec URI of a save_pretrained folder.", min_length=1
    )
    revision: str | None = Field(None, description="Hub revision; pin it for a reproducible run.")
    labels: LabelSetConfig | None = Field(
        None, description="Names of the head's outputs, where the checkpoint's own are not the run's."
    )
    mapping: str | None = Field(
        None, description="A file that maps the head's labels to the run's; without it equal names and aliases do."
    )
    prompts: tuple[str, ...] | str | None = Field(
        None,
        description="Zero-shot templates, each with {} for the label; or a shipped set (single, actions28), or a "
        "YAML file with a list of templates.",
    )
    negative_prompts: tuple[str, ...] = Field(
        (),
        description="Zero-shot texts of what is none of the labels ('a video of nothing in particular'): a clip "
        "nearer to them than to any label gets ensemble.none_label.",
    )
    sampling: SamplingConfig = SamplingConfig()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="What it computes in; auto: bf16 on CUDA, fp32 on the CPU."
    )
    layout: Literal["auto", "contiguous", "channels_last_3d"] = Field(
        "auto", description="Memory order of a 3D network's weights and features; auto: contiguous."
    )
    compile: Literal["auto", "off", "default", "reduce-overhead"] = Field(
        "auto", description="torch.compile; reduce-overhead adds CUDA graphs. Takes minutes per worker; auto: off."
    )

    @field_validator("prompts")
    @classmethod
    def _templates_have_a_slot(cls, value: tuple[str, ...] | str | None) -> tuple[str, ...] | str | None:
        if isinstance(value, tuple):
            check_templates(value)
        return value

    @field_validator("negative_prompts")
    @classmethod
    def _negatives_are_texts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not text.strip() or "{}" in text:
                raise ValueError(f"{text!r}: a negative prompt is a whole text, not empty and without {{}}")
        return value


def check_templates(templates: Sequence[str]) -> None:
    """Raise ValueError for prompt templates that are none."""
    if not templates:
        raise ValueError("give at least one template, or leave prompts out")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"{template!r} needs exactly one {{}} where the label goes, e.g. 'a video of {{}}'")
