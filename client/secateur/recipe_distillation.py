"""Learning from the upload: its soft predictions as targets, beside the labels or without any."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from secateur.recipe_base import RecipeModel
from secateur.recipe_features import FeatureMatch


class Distillation(RecipeModel):
    """The upload teaches what was pruned (Hinton et al. 2015).

    The loss is (1 - `alpha`) times the loss towards the labels, and `alpha` times T² KL(teacher ||
    student) between the class probabilities of both at temperature T.
    """

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the teacher in the loss. 1 learns from the teacher alone and needs no labels: a
    train split of inputs will do. 0 learns from the labels alone, and only reports the teacher's
    part."""
    temperature: Annotated[float, Field(gt=0, le=1000)] = 4.0
    """T: scores of teacher and student are divided by it before the softmax. The higher, the more
    the unlikely classes count."""
    features: list[FeatureMatch] = Field(default=[], max_length=50)
    """Modules whose outputs are compared with the teacher's, beside its scores."""

    @property
    def needs_targets(self) -> bool:
        """Whether the labels have a share in the loss."""
        return self.alpha < 1
