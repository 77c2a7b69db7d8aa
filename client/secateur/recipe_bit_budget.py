"""What bits per layer are chosen by: a budget of bytes, or a limit of what may be lost."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel

_LIMITS = ("max_drift", "max_accuracy_drop", "max_metric_drop", "max_loss_increase")


class LossLimit(RecipeModel):
    """How much all weights together may lose, measured with all of them in their formats. Drift
    needs no labels; without a dataset it is measured on the example."""

    max_drift: Annotated[float, Field(gt=0)] | None = None
    """Of the outputs over all samples: norm of the change over the norm."""
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of top-1 accuracy on the validation split, as a fraction (0.01 = one point)."""
    max_metric_drop: Annotated[float, Field(ge=0)] | None = None
    """How much worse the job's metric (`objective.metric`) may get on the validation split, in its
    own unit."""
    max_loss_increase: Annotated[float, Field(ge=0)] | None = None
    """Of the loss on the validation split."""
    samples: Annotated[int, Field(ge=1)] | None = 256
    """Samples of the validation split that are measured on, drawn by the seed; null for all."""

    @property
    def given(self) -> list[str]:
        """Names of the rules that are given."""
        return [name for name in self.rules() if getattr(self, name) is not None]

    @classmethod
    def rules(cls) -> tuple[str, ...]:
        """Names of the rules there are."""
        return _LIMITS

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.given) != 1:
            listed = "`, `".join(self.rules())
            raise ValueError(f"give exactly one of `{listed}`")
        return self

    @property
    def labelled_field(self) -> str | None:
        """The rule, where measuring it needs a validation split with targets."""
        (name,) = self.given
        return None if name in ("max_drift", "bytes") else name


class FallBack(LossLimit):
    """Weights that lose too much get more bits, or keep what they have: the fewest bytes with
    which the limit is kept."""


class BitBudget(LossLimit):
    """A budget of bytes, or a limit of what all weights together may lose."""

    bytes: Annotated[int, Field(gt=1)] | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the stored weights: a number of bytes, or, below 1, a share of what the same weights take
    now."""

    @classmethod
    def rules(cls) -> tuple[str, ...]:
        """Names of the rules there are."""
        return ("bytes", *_LIMITS)
