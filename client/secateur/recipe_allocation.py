"""How much a prune stage removes, and where."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel

Scope = Literal["local", "global"]


class Allocation(RecipeModel):
    """How much is removed, and over what the ranking runs. Exactly one of `amount` and `count`."""

    scope: Scope = "local"
    """`local`: the same amount from every layer; `global`: one ranking over the whole network."""
    amount: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Fraction to remove, of the prunable channels, heads, layers or weights, by granularity."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Number to remove: per layer when local, in total when global."""
    of: Literal["channels", "heads", "layers", "weights"] | None = None
    """What the amount counts; left out, it is what the granularity removes."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.amount is None) == (self.count is None):
            raise ValueError(
                "give exactly one of `amount` (fraction between 0 and 1) and `count` (1 or more)"
            )
        return self
