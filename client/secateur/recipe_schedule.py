"""When a prune stage removes: at once, or in rounds with training between them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from secateur.recipe_base import RecipeModel
from secateur.recipe_lottery import Imp, ImpRewind, Supermask
from secateur.recipe_training import FinetuneOptions


class OneShot(RecipeModel):
    """Prune once to the full amount."""

    kind: Literal["one_shot"] = "one_shot"


class Iterative(RecipeModel):
    """(prune, fine-tune) x rounds until the amount is reached (Han et al. 2015)."""

    kind: Literal["iterative"]
    rounds: Annotated[int, Field(ge=2, le=100)] = 4
    finetune: FinetuneOptions | None = FinetuneOptions()
    """Training after every round; null prunes in rounds without training."""


Schedule = Annotated[OneShot | Iterative | Imp | ImpRewind | Supermask, Field(discriminator="kind")]
