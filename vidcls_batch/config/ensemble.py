"""How the members' scores become one label."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from vidcls_batch.config.section import Section

# Rules that look at one clip at a time, and those that need the whole table: `relabel` has both.
ClipRule = Literal["weighted_mean", "log_pool", "logit_mean", "majority", "weighted_vote", "rank_fusion", "stacking"]
TableRule = Literal["dawid_skene", "one_coin_dawid_skene", "mace", "glad"]


class CascadeConfig(Section):
    """Ask some members about every clip, the others only about those that the first are not sure of."""

    first: tuple[str, ...] = Field(min_length=1, description="The members that score every clip: cheap ones.")
    margin: float = Field(ge=0, le=1, description="A clip whose margin by the first members is lower goes on to all.")
    audit_share: float = Field(
        0.02, ge=0, le=1, description="Of the other clips, the share that goes on too, to see what the cascade costs."
    )


class EnsembleConfig(Section):
    """How the members' scores become one label."""

    rule: ClipRule | TableRule = Field(
        "weighted_mean",
        description="See docs/ensembles.md; dawid_skene, one_coin_dawid_skene, mace and glad look at the whole table: "
        "for `vidcls relabel` only.",
    )
    weights: dict[str, float] = Field(default_factory=dict, description="Weight per member name; default 1 each.")
    label_weights: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="Per member and label, a factor of its weight; default 1: {audio: {playing guitar: 3}}.",
    )
    missing: Literal["skip", "uniform", "fail"] = Field(
        "skip",
        description="A clip that a member has no score of (no sound): skip counts the others only, uniform counts it "
        "as having no idea, fail makes the clip a model_error.",
    )
    member_errors: Literal["fail", "missing"] = Field(
        "fail", description="A clip on which a member raises: fail makes it a model_error, missing does without it."
    )
    none_below: float = Field(
        0.0, ge=0, le=1, description="A clip whose best score is lower gets none_label and label_id -1."
    )
    none_label: str = Field("none of these", min_length=1)
    calibration: str | None = Field(
        None, description="A file that `vidcls calibrate` wrote: scores of members and ensemble through it."
    )
    cascade: CascadeConfig | None = Field(None, description="Cheap members first; without it all score every clip.")
    top_k: int = Field(5, ge=1, le=1000)

    @field_validator("label_weights")
    @classmethod
    def _label_weights_are_weights(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for name, weights in value.items():
            for label, weight in weights.items():
                if not 0 <= weight < float("inf"):
                    raise ValueError(f"weight of {name!r} for {label!r} is {weight}; it must be finite and >= 0")
        return value

    @model_validator(mode="after")
    def _stacking_has_learned(self) -> "EnsembleConfig":
        if self.rule == "stacking" and self.calibration is None:
            raise ValueError(
                "rule stacking needs ensemble.calibration: learn it with vidcls calibrate RUN --truth FILE --stacking"
            )
        return self

    @field_validator("weights")
    @classmethod
    def _weights_are_weights(cls, value: dict[str, float]) -> dict[str, float]:
        for name, weight in value.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"weight of {name!r} is {weight}; it must be a finite number >= 0")
        if value and sum(value.values()) == 0:
            raise ValueError("all weights are 0; at least one must be above 0")
        return value

    @property
    def asked_first(self) -> tuple[str, ...]:
        """The members that a cascade asks about every clip; none without a cascade."""
        return self.cascade.first if self.cascade else ()
