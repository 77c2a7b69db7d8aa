"""BatchNorm statistics measured anew, without training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from secateur.recipe_base import RecipeModel


class RecalibrateStage(RecipeModel):
    """Measure the running statistics of BatchNorm anew, on inputs alone; no weight moves."""

    stage: Literal["recalibrate"]
    samples: Annotated[int, Field(ge=1, le=100_000_000)] = 1024
    """As many of the train split, drawn by the seed, or all where it has fewer."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    """Samples that are normalised together, as in training."""
    momentum: Annotated[float, Field(gt=0, le=1)] | None = None
    """Null forgets the statistics and takes those of all samples together (precise BatchNorm, Wu &
    Johnson 2021). A number keeps them and moves them with every batch by this share, as training
    does."""
