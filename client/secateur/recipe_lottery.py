"""Lottery tickets and supermasks: schedules that go back to the initial weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel
from secateur.recipe_training import FinetuneOptions

TICKETS = ("imp", "imp_rewind")
"""Schedules that mask single weights; the granularity need not be said."""


class Imp(RecipeModel):
    """Iterative magnitude pruning: (train, prune, rewind the survivors to the initial weights) x
    rounds, and train the ticket once more (Frankle & Carbin 2019)."""

    kind: Literal["imp"]
    rounds: Annotated[int, Field(ge=1, le=100)] = 5
    """Every round removes the same share of the weights that are left."""
    training: FinetuneOptions = FinetuneOptions()
    """Training before every round, and of the ticket at the end; each starts from the initial
    weights."""


class ImpRewind(RecipeModel):
    """The same, rewinding to an early step k of the first training (Frankle et al. 2020)."""

    kind: Literal["imp_rewind"]
    rounds: Annotated[int, Field(ge=1, le=100)] = 5
    """Every round removes the same share of the weights that are left."""
    training: FinetuneOptions = FinetuneOptions()
    """The whole training of which k is a part: every training after the rewinding point runs from
    k to its end."""
    rewind_epoch: Annotated[int, Field(ge=1)] | None = None
    """k in epochs. Exactly one of this and `rewind_step`."""
    rewind_step: Annotated[int, Field(ge=1)] | None = None
    """k in optimiser steps."""
    copies: Annotated[int, Field(ge=1, le=16)] = 1
    """Trainings of the ticket from k with different orders of the data. From 2 on, the report says
    how stable the ticket is; the first copy is the result."""

    @model_validator(mode="after")
    def _one_point_inside_the_training(self) -> Self:
        if (self.rewind_epoch is None) == (self.rewind_step is None):
            raise ValueError("give exactly one of `rewind_epoch` and `rewind_step`")
        if self.rewind_epoch is not None and self.rewind_epoch >= self.training.epochs:
            raise ValueError(
                f"`rewind_epoch` {self.rewind_epoch} must lie before the end of `training` "
                f"({self.training.epochs} epochs)"
            )
        return self


class Baseline(RecipeModel):
    """A control beside the result: the pruned architecture, trained from new random weights
    (Liu et al. 2019). It is reported and not kept."""

    kind: Literal["scratch_e", "scratch_b"]
    """`scratch_e` trains the same number of epochs, `scratch_b` as many as take the same
    computation as those epochs of the original."""
    training: FinetuneOptions | None = None
    """How it trains; null takes the recipe's last training, with the epochs of all of them."""
