"""How often a job notes where it stands."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel


class Checkpoints(RecipeModel):
    """Checkpoints within the epochs of a training run, beside the one after every epoch. With both
    fields, whatever comes first."""

    steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """After this many optimiser steps since the last one."""
    seconds: Annotated[float, Field(ge=0.1, le=86_400)] | None = None
    """After the first step that ends this long after the last one."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.steps is None and self.seconds is None:
            raise ValueError(
                "`checkpoint` needs `steps` or `seconds`; left out altogether, checkpoints come as "
                "often as 3 % of the time allows"
            )
        return self
