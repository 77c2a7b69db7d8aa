"""How the uploaded program itself is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel


class Optimizer(RecipeModel):
    """Optimiser of a fine-tuning run."""

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0, le=10)] = 0.01
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD only."""
    nesterov: bool = False
    """SGD only."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.kind != "sgd" or self.momentum == 0):
            raise ValueError("`nesterov` needs `kind: sgd` and a momentum above 0")
        return self


class FinetuneOptions(RecipeModel):
    """How the uploaded program itself is trained between and after pruning."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    optimizer: Optimizer = Optimizer()
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    """`cosine` decays the rate to zero over this run (Loshchilov & Hutter 2017, one cycle)."""
    loss: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    batch_norm: Literal["train", "frozen"] = "train"
    """`train`: BatchNorm uses and updates batch statistics; `frozen`: keeps the running ones."""
    keep: Literal["best", "last"] = "best"
    """Weights to keep: of the best epoch on the validation split, or of the last."""
