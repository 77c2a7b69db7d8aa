"""Features: what modules compute inside, which a student learns from its teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from secateur.recipe_base import RecipeModel


class FeatureMatch(RecipeModel):
    """The outputs of a module in the pruned model and in the upload are brought together."""

    layer: Annotated[str, Field(min_length=1, max_length=500)]
    """Path of a module, such as `layer2.1`, or a glob pattern over paths: every module that it
    matches is compared, those that give the same tensor once."""
    weight: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """The loss of each module is added to the rest of the loss times this."""
    loss: Literal["mse", "cosine", "attention"] = "mse"
    """`mse`: squared differences over the channels that are left. `cosine`: the angle between those
    channels at each position. `attention`: where the squares of all channels are large (Zagoruyko &
    Komodakis 2017); positions are compared, whatever channels are left."""
