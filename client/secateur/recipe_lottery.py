"""Lottery tickets and supermasks: schedules that go back to the initial weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel
from secateur.recipe_training import FinetuneOptions

TICKETS = ("imp", "imp_rewind", "supermask")
"""Schedules that mask single weights; the granularity need not be said."""
TICKET_CRITERIA = (
    "large_final",
    "small_final",
    "large_init",
    "small_init",
    "large_init_large_final",
    "small_init_small_final",
    "magnitude_increase",
    "init_movement",
    "large_final_same_sign",
)
"""Criteria that compare initial and final weights; only those schedules have both."""


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


class Supermask(RecipeModel):
    """Mask the untrained weights and train none of them (Zhou et al. 2019)."""

    kind: Literal["supermask"]
    mask: Literal["trained", "learned"] = "trained"
    """`trained`: the stage's criterion judges a trained copy; `learned`: the mask itself is
    trained, by a probability for every weight."""
    training: FinetuneOptions = FinetuneOptions()
    """Training of the copy, or of the mask; a mask wants a far higher learning rate than weights
    (`adamw` at 0.1) and no weight decay."""
    values: Literal["init", "constant", "reshuffled", "reinitialised"] = "init"
    """Magnitudes of the kept weights: their initial ones; the standard deviation of the layer's
    initial weights; the layer's kept ones in random order; drawn anew."""
    signs: Literal["init", "random"] = "init"
    """Signs of the kept weights."""
    removed: Literal["zero", "init", "zero_if_shrunk"] = "zero"
    """What removed weights are: zero; their initial values; or zero where training made them
    smaller and initial elsewhere. Only zeros are masks that later stages hold."""
    rescale: bool = False
    """Multiply the kept weights of a layer by all / kept (dynamic weight rescaling)."""

    @model_validator(mode="after")
    def _learned_masks_are_of_initial_weights(self) -> Self:
        other = (self.values, self.signs, self.removed) != ("init", "init", "zero")
        if self.mask == "learned" and other:
            raise ValueError(
                "`mask: learned` is learned for the initial weights: leave `values`, `signs` and "
                "`removed` out"
            )
        return self

    @model_validator(mode="after")
    def _a_learned_mask_moves_no_weights(self) -> Self:
        for name in ("clip_norm", "clip_value", "ema"):
            if self.mask == "learned" and getattr(self.training, name) is not None:
                raise ValueError(
                    f"`training.{name}` acts on weights and their gradients, and with `mask: "
                    "learned` no weight is trained; leave it out"
                )
        return self


class Baseline(RecipeModel):
    """A control beside the result: the pruned architecture trained from new random weights
    (Liu et al. 2019), or a random choice of what is removed. It is reported and not kept."""

    kind: Literal["scratch_e", "scratch_b", "random_pruning"]
    """`scratch_e` trains the same number of epochs from new weights, `scratch_b` as many as take
    the same computation as those epochs of the original. `random_pruning` keeps the upload's
    weights and loses as many units of every layer as the result, drawn by lot."""
    training: FinetuneOptions | None = None
    """How it trains; null takes the recipe's last training, with the epochs of all of them and the
    teacher it had. Give one without `distillation` for a control that learns from labels alone.
    It trains all its epochs, without early stopping."""

    @model_validator(mode="after")
    def _trains_to_the_end(self) -> Self:
        if self.training is not None and self.training.early_stopping is not None:
            raise ValueError(
                "`training.early_stopping` would make the control shorter than what it stands "
                "beside; leave it out"
            )
        return self
