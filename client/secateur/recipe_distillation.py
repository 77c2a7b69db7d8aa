"""Learning from the upload: what it gives as targets, beside the labels or without any."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from secateur.recipe_base import RecipeModel
from secateur.recipe_features import FeatureMatch


def _spelled(value: object) -> object:
    """YAML reads `on` and `off` as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class Distillation(RecipeModel):
    """The upload teaches what was pruned (Hinton et al. 2015).

    The loss is (1 - `alpha`) times the loss towards the targets of the dataset, and `alpha` times
    the distance between the outputs of both that `kind` names.
    """

    kind: Literal["soft_targets", "cosine", "mse"] = "soft_targets"
    """`soft_targets`: T² KL(teacher || student) between the class probabilities at temperature T;
    `cosine`: 1 minus the cosine between the outputs; `mse`: their mean squared difference. The
    last two take any output: scores, values, embeddings."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the teacher in the loss. 1 learns from the teacher alone and needs no labels: a
    train split of inputs will do. 0 learns from the labels alone, and only reports the teacher's
    part."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 4.0
    """T: scores of teacher and student are divided by it before the softmax. The higher, the more
    the unlikely classes count. `soft_targets` only."""
    features: list[FeatureMatch] = Field(default=[], max_length=50)
    """Modules whose outputs are compared with the teacher's, beside its scores."""
    unlabelled: bool = True
    """Whether the teacher also teaches on the dataset's split `unlabelled`, where there is one. Its
    samples and those of `train` are drawn in one order; labels count where there are any."""

    @model_validator(mode="after")
    def _temperature_is_of_use(self) -> Self:
        default = type(self).model_fields["temperature"].default
        if self.kind != "soft_targets" and self.temperature != default:
            raise ValueError(
                f"`temperature` softens class probabilities, and `kind: {self.kind}` compares "
                "none; leave it out"
            )
        return self

    cache: Annotated[Literal["auto", "on", "off"], BeforeValidator(_spelled)] = "auto"
    """Whether the teacher's scores are computed once and kept in a file in the work folder. `auto`
    keeps them where that changes no bit and a run has two or more epochs, `on` accepts rounding
    that depends on the batch. Not with `features`, and not with random transforms."""
    cache_dtype: Literal["exact", "float32", "float16"] = "exact"
    """Type of the scores in the file; `exact` is that of the teacher. Others need `cache: on`."""

    @model_validator(mode="after")
    def _rounding_is_asked_for(self) -> Self:
        if self.cache_dtype != "exact" and self.cache != "on":
            raise ValueError(
                f"`cache_dtype: {self.cache_dtype}` may round the teacher's scores; set "
                "`cache: on` to accept that"
            )
        return self

    @property
    def learns_unlabelled(self) -> bool:
        """Whether samples without labels would teach anything."""
        return self.unlabelled and (self.alpha > 0 or bool(self.features))

    @property
    def needs_targets(self) -> bool:
        """Whether the labels have a share in the loss."""
        return self.alpha < 1
