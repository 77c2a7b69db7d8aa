"""Limits on the result of a job."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel


class Limit(RecipeModel):
    """How much worse a number may get. Exactly one of the two."""

    absolute: Annotated[float, Field(ge=0)] | None = None
    """In the number's own unit."""
    relative: Annotated[float, Field(ge=0)] | None = None
    """As a share of what it was (0.05 = five per cent)."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.absolute is None) == (self.relative is None):
            raise ValueError("give exactly one of `absolute` and `relative`")
        return self

    def allowed(self, before: float) -> float:
        """The largest change for the worse, 0 or more, in the number's own unit."""
        return (self.relative or 0.0) * abs(before) if self.absolute is None else self.absolute


class Constraints(RecipeModel):
    """Limits on the result. A job whose result breaks one fails, with its report kept."""

    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest loss of top-1 accuracy on the validation split, as a fraction (0.01 = one point)."""
    max_metric_drop: Limit | None = None
    """How much worse the job's metric (`objective.metric`) may get on the validation split: lower
    where higher is better, higher where lower is (`{absolute: 0.5}`, `{relative: 0.05}`)."""
    max_loss_increase: Limit | None = None
    """How much the validation loss may rise."""
    min_speedup: Annotated[float, Field(gt=0)] | None = None
    """Smallest measured speed-up (median latency, original / compact) at the first batch size."""

    @property
    def on_validation(self) -> str | None:
        """The first field that needs a validation split with targets, or None."""
        names = ("max_accuracy_drop", "max_metric_drop", "max_loss_increase")
        return next((name for name in names if getattr(self, name) is not None), None)
