"""The search: which numbers of a recipe vary, what is best, and how many tries that may take.

The recipe around it is the base; a trial is the base with a value at every path of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from secateur.recipe_base import RecipeModel
from secateur.recipe_objective import METRICS
from secateur.search_space import number_of_points, outside, path_fault, shown

Quantity = Literal[
    "accuracy",
    "top5",
    "miou",
    "perplexity",
    "binary_accuracy",
    "mse",
    "rmse",
    "mae",
    "loss",
    "macs",
    "params",
    "file_bytes",
    "latency_ms",
]
"""What a trial is judged by, as its report has it: metrics and loss on the validation split,
multiply-accumulates, non-zero parameters, bytes of the file, median latency at the first batch
size."""
MAXIMIZED: frozenset[str] = frozenset(
    name for name, kind in METRICS.items() if kind.higher_is_better
)
"""Of all others less is better."""
Sampler = Literal["tpe", "nsga2", "random", "grid"]
SpacePath = Annotated[str, Field(min_length=1, max_length=600)]


Number = int | Annotated[float, Field(allow_inf_nan=False)]


class Span(RecipeModel):
    """A range of numbers, both ends included. Where all that is given are whole numbers, so are the
    values."""

    low: Number
    """Smallest value."""
    high: Number
    """Largest value, above `low`."""
    step: Annotated[Number, Field(gt=0)] | None = None
    """Only `low`, `low + step`, `low + 2 step` and so on, up to `high`."""
    log: bool = False
    """Whether values spread evenly over orders of magnitude, as learning rates do."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"`low` must be below `high`: {self.low:g} and {self.high:g} are not")
        if self.log and self.step is not None:
            raise ValueError("`log` and `step` do not go together; leave one out")
        if self.log and self.low <= 0:
            raise ValueError(f"`log` needs a `low` above 0; it is {self.low:g}")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(
                f"`step: {self.step:g}` leads from `low: {self.low:g}` beyond `high: {self.high:g}`"
            )
        return self


Choices = Annotated[list[Any], Field(min_length=1, max_length=64)]
Dimension = Annotated[
    Annotated[Span, Tag("Span")] | Annotated[Choices, Tag("list")],
    Discriminator(lambda written: "list" if isinstance(written, list) else "Span"),
]


class Search(RecipeModel):
    """Try the recipe with many values, each try a compress job, and keep the best."""

    space: dict[SpacePath, Dimension] = Field(min_length=1, max_length=64)
    """What varies, by the path of its field: a range of numbers, or a list of values to choose
    from. `stages.0.allocation.amount`, `stages.0.allocation.layers.conv*`, `stages.1.epochs`."""
    objectives: list[Quantity] = Field(min_length=1, max_length=4)
    """What is best: the highest of metrics such as `accuracy`, the lowest of all others. Several
    are weighed against each other by a Pareto front."""
    bounds: dict[Quantity, Annotated[float, Field(ge=0)]] = Field(default={})
    """The worst value that is acceptable, by quantity; trials beyond it, like those that break a
    constraint of the recipe, are listed but never chosen."""
    trials: Annotated[int, Field(ge=1, le=1000)] = 20
    """Compress jobs in all; fewer where the space has fewer points."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 4
    """Trials at a time, where as many workers are free. What a sampler learns from the trials
    before depends on which have ended: only with 1 does the same search try the same values."""
    sampler: Sampler = "tpe"
    """How values are found: by what was good so far (`tpe`, `nsga2`), at random, or one after the
    other (`grid`, whose ranges need a `step` or whole numbers)."""
    choose: Literal["knee"] | Quantity = "knee"
    """Of several objectives, which trial of the front is the result: the knee, or the best by one
    of the objectives."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the sampler. What is random within a trial is decided by the recipe's own seed, the same
    in all."""

    @field_validator("space")
    @classmethod
    def _paths_lie_side_by_side(cls, space: dict[str, Any]) -> dict[str, Any]:
        for path in space:
            fault = path_fault(path)
            if fault is not None:
                raise ValueError(f"`{path}`: {fault}")
        for first, second in combinations(sorted(space, key=len), 2):
            if second.startswith(f"{first}."):
                raise ValueError(f"`{second}` lies inside `{first}`; vary one of them")
        for path, dimension in space.items():
            if isinstance(dimension, list):
                for index, value in enumerate(dimension):
                    if _holds(dimension[:index], value):
                        raise ValueError(f"`{path}`: `{shown(value)}` is listed twice")
        return space

    @field_validator("objectives")
    @classmethod
    def _objectives_differ(cls, objectives: list[str]) -> list[str]:
        if len(set(objectives)) < len(objectives):
            raise ValueError("each objective is given once")
        return objectives

    @model_validator(mode="after")
    def _choice_is_an_objective(self) -> Self:
        if self.choose not in ("knee", *self.objectives):
            named = ", ".join(f"`{name}`" for name in ("knee", *self.objectives))
            raise ValueError(
                f"`choose: {self.choose}` is none of the objectives; valid are {named}"
            )
        return self

    @model_validator(mode="after")
    def _a_grid_has_points(self) -> Self:
        if self.sampler == "grid":
            for path, dimension in self.space.items():
                if number_of_points({path: dimension}) is None:
                    raise ValueError(
                        f"`sampler: grid` needs a `step` in `space.{path}`, or a list of values"
                    )
        return self

    @model_validator(mode="after")
    def _bounds_can_be_met(self) -> Self:
        for name, bound in self.bounds.items():
            if name in METRICS and METRICS[name].fraction and bound > 1:
                raise ValueError(f"`bounds.{name}` is a fraction: 0.97, not 97")
        return self

    def labelled_field(self) -> str | None:
        """Path of the first field that needs a validation split with targets, or None."""
        if METRICS.keys() & set(self.objectives):
            return "search.objectives"
        return "search.bounds" if METRICS.keys() & set(self.bounds) else None

    def unmeasured(self, measured: Sequence[str]) -> str | None:
        """What is wrong where the recipe's objective measures these metrics and the loss."""
        for field, names in (("objectives", self.objectives), ("bounds", self.bounds)):
            for name in names:
                if name in METRICS and name not in (*measured, "loss"):
                    listed = ", ".join(f"`{one}`" for one in dict.fromkeys((*measured, "loss")))
                    return (
                        f"`search.{field}` asks for `{name}`, and the trials measure {listed}; add "
                        "it to `objective.metrics`"
                    )
        return None

    def beyond(self, values: dict[str, float]) -> str | None:
        """Which bound a trial's quantities go beyond, in words, or None."""
        for name, bound in self.bounds.items():
            if name in values and outside(values[name], bound, highest=name not in MAXIMIZED):
                side = "least" if name in MAXIMIZED else "most"
                return f"`{name}` is {values[name]:.6g}, at {side} {bound:g} is asked"
        return None


def _holds(values: list[Any], value: Any) -> bool:
    """Whether the list has it; `1` and `True` are two values, as they are in a recipe."""
    return any(type(one) is type(value) and one == value for one in values)
