"""Quantisation: fewer bits for each weight, as stages of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from secateur.recipe_base import RecipeModel
from secateur.recipe_training import FinetuneOptions

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
    finetune: FinetuneOptions | None = None
    """Training after encoding, in which quantised weights keep to what is stored: indices stay and
    shared values move (`codebook`), or weights are rounded anew for every step (`weight_only`).
    Null leaves what encoding gave."""


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


QuantizeStage = Annotated[WeightOnly | Codebook, Field(discriminator="scheme")]


def order_fault(stages: Sequence[object]) -> str | None:
    """What is wrong with the order of stages, or None.

    Args:
        stages: of the recipe.
    """
    first: int | None = None
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
