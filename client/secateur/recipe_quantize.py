"""Quantisation: fewer bits for each weight, as stages of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel

Decode = Literal["at_load", "at_use"]
"""When stored weights become numbers again."""


class QuantizeOptions(RecipeModel):
    """What every scheme of quantisation has."""

    stage: Literal["quantize"]
    exclude: list[str] = Field(default=[], max_length=256)
    """Patterns of layers that keep their weights as they are."""


class StoredOptions(QuantizeOptions):
    """What schemes have that store weights in another form and compute in floating point."""

    decode: Decode = "at_load"
    """When stored weights become numbers again: `at_load`, once, when the file is loaded (memory
    and speed are then as before), or `at_use`, whenever they are read: they stay small in memory,
    and each run pays for decoding."""


class WeightOnly(StoredOptions):
    """Weights stored in 8, 4, 2 or 1 bits with a scale for each group; the arithmetic stays in
    floating point."""

    scheme: Literal["weight_only"]
    bits: Literal[8, 4, 2, 1] = 8
    """Of each weight. One bit is its sign, times the mean magnitude of its group."""
    group_size: Annotated[int, Field(ge=2, le=65_536)] | None = 64
    """Weights of an output channel that share a scale; null gives each channel one scale."""
    symmetric: bool = False
    """Grids around zero: no offsets to store, and zero is exact."""
    clip: Literal["none", "mse"] = "none"
    """`mse` narrows the range of each group to where the squared error is smallest."""


class Codebook(StoredOptions):
    """Weights that share a few values: a table of them, and for each weight which one it has."""

    scheme: Literal["codebook"]
    size: Annotated[int, Field(ge=2, le=256)] = 16
    """Values in a table; indices take as many bits as they need to tell them apart. Pruned weights
    take one entry, the exact zero."""
    method: Literal["kmeans", "gaussian_mixture"] = "kmeans"
    """How the values are found: means of clusters, or of the components of a mixture."""
    start: Literal["linear", "density", "random"] = "linear"
    """Where the search starts: evenly over the range, evenly over the weights by number, or at
    weights drawn by the seed (Han et al. 2016)."""
    groups: Annotated[int, Field(ge=1, le=65_536)] = 1
    """Tables of a weight, each for its part of the output channels; weights with fewer channels
    have one for each."""
    table: Literal["float32", "float16"] = "float32"
    """Type of the shared values."""


class Int8Options(QuantizeOptions):
    """What schemes have that compute in int8, on CPUs."""

    max_drift: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """How far outputs may move, as the norm of the change over their norm, on the samples (or the
    example, where there is no dataset). Layers that cost most keep floating point until that holds;
    null keeps them all in int8."""


class DynamicInt8(Int8Options):
    """Linear, LSTM and GRU layers multiply integers; their inputs are quantised when they run."""

    scheme: Literal["dynamic_int8"]


class StaticInt8(Int8Options):
    """Whole chains of layers compute in integers, by ranges that were calibrated on data."""

    scheme: Literal["static_int8"]
    observer: Literal["histogram", "min_max", "percentile"] = "histogram"
    """What range of each activation is kept: the one with the smallest squared error, all of it, or
    all but a share of the values."""
    percentile: Annotated[float, Field(gt=50.0, le=100.0)] | None = None
    """Of the values that observer `percentile` keeps; null is 99.99."""
    samples: Annotated[int, Field(ge=1, le=100_000)] = 512
    """Of the training split to calibrate on, drawn by the seed."""

    @model_validator(mode="after")
    def _percentile_has_its_observer(self) -> Self:
        if self.percentile is not None and self.observer != "percentile":
            raise ValueError(
                f"`percentile` belongs to `observer: percentile`, and the observer is "
                f"`{self.observer}`; leave one of them out"
            )
        return self


QuantizeStage = Annotated[
    WeightOnly | Codebook | DynamicInt8 | StaticInt8, Field(discriminator="scheme")
]


def order_fault(stages: Sequence[object]) -> str | None:
    """What is wrong with the order of stages, or None.

    Args:
        stages: of the recipe.
    """
    first: int | None = None
    quantising = [index for index, one in enumerate(stages) if isinstance(one, QuantizeOptions)]
    for index in quantising:
        if isinstance(stages[index], Int8Options) and len(quantising) > 1:
            other = next(one for one in quantising if one != index)
            return (
                f"`stages.{index}` computes in int8, from weights in floating point, and "
                f"`stages.{other}` stores them in another form; keep one of the two"
            )
    for index, stage in enumerate(stages):
        name = getattr(stage, "stage", "")
        if isinstance(stage, QuantizeOptions):
            first = index if first is None else first
        elif first is not None and name in ("prune", "finetune"):
            return (
                f"`stages.{index}` is a `{name}` stage after `stages.{first}`, which quantises: it "
                "would move weights off their grid; put it before the first `quantize` stage"
            )
    return None
