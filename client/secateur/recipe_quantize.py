"""Quantisation: fewer bits for each weight, as stages of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel
from secateur.recipe_bit_budget import BitBudget, FallBack
from secateur.recipe_training import FinetuneOptions

Decode = Literal["at_load", "at_use"]
"""When stored weights become numbers again."""


GroupSize = Annotated[int, Field(ge=2, le=65_536)] | Literal["auto"] | None


def group_size_of(stage: WeightOnly | MixedPrecision, bits: int) -> int | None:
    """Weights that share a scale in these bits; None for whole channels."""
    if stage.group_size == "auto":
        return None if bits == 8 else 64
    return stage.group_size


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
    shared values move (`codebook`), or weights are rounded anew for every step (all others). Null
    leaves what encoding gave."""


class WeightOnly(StoredOptions):
    """Weights stored in 8, 4, 2 or 1 bits with a scale for each group; the arithmetic stays in
    floating point."""

    scheme: Literal["weight_only"]
    bits: Literal[8, 4, 2, 1] = 8
    """Of each weight. One bit is its sign, times the mean magnitude of its group."""
    group_size: GroupSize = "auto"
    """Weights of an output channel that share a scale; null gives each channel one scale. `auto` is
    null for 8 bits, where finer scales would take more than they win, and 64 for fewer."""
    symmetric: bool = False
    """Grids around zero: no offsets to store, and zero is exact."""
    clip: Literal["none", "mse"] = "none"
    """`mse` narrows the range of each group to where the squared error is smallest."""
    fall_back: FallBack | None = None
    """Weights that lose too much in these bits get more (up to 8), or keep their own; the report
    names them."""


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
    fall_back: FallBack | None = None
    """Weights that lose too much by sharing keep their own values; the report names them."""


class SparseWeights(StoredOptions):
    """Pruned weights stored as the places and values of what is left: without loss, unless the
    values themselves get fewer bits."""

    scheme: Literal["sparse"]
    bits: Literal[8, 4, 2] | None = None
    """Of each value that is left, in groups of 64 with a scale; null keeps the values as they
    are."""
    shared: Annotated[int, Field(ge=2, le=256)] | None = None
    """Values that those that are left share, as in a `codebook`; null shares none."""

    @model_validator(mode="after")
    def _values_are_stored_in_one_way(self) -> Self:
        if self.bits is not None and self.shared is not None:
            raise ValueError("`bits` and `shared` both say how values are stored; leave one out")
        if self.finetune is not None:
            raise ValueError(
                "`scheme: sparse` trains nothing; put a `finetune` stage before it, which keeps "
                "what was pruned at zero, or use `codebook` with `finetune`"
            )
        return self


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
    finetune: FinetuneOptions | None = None
    """Training after calibration, with weights and activations rounded as the file will
    (quantisation-aware); ranges follow. Null leaves what calibration gave."""

    @model_validator(mode="after")
    def _training_knows_its_program(self) -> Self:
        training = self.finetune
        if training is None:
            return self
        if training.dropout == "rescale":
            raise ValueError("`finetune.dropout: rescale` is not for int8; use `keep`")
        if training.distillation is not None and training.distillation.features:
            raise ValueError(
                "`finetune.distillation.features` compares values that int8 rounds; leave it out, "
                "and learn from the outputs"
            )
        return self

    @model_validator(mode="after")
    def _percentile_has_its_observer(self) -> Self:
        if self.percentile is not None and self.observer != "percentile":
            raise ValueError(
                f"`percentile` belongs to `observer: percentile`, and the observer is "
                f"`{self.observer}`; leave one of them out"
            )
        return self


class HalfPrecision(StoredOptions):
    """Weights in 16 bits, with or without the arithmetic."""

    scheme: Literal["fp16", "bf16"]
    compute: Literal["float32", "half"] = "float32"
    """`float32` stores weights in 16 bits and computes as before. `half` computes in 16 bits:
    operators without a kernel for that, and those that overflow on the example, stay in float32
    and are named in the report; `decode` has no part in it."""
    interface: Literal["float32", "half"] = "float32"
    """Of a program that computes in half precision: the type of its floating-point outputs. With
    `half`, inputs may be half as well."""

    @model_validator(mode="after")
    def _fields_fit_the_arithmetic(self) -> Self:
        if self.compute == "half" and self.decode == "at_use":
            raise ValueError(
                "`decode: at_use` casts weights to float32, and `compute: half` computes with them "
                "as they are stored; leave `decode` out"
            )
        if self.compute == "half" and self.finetune is not None:
            raise ValueError(
                "`finetune` trains weights that are stored in 16 bits; a program with `compute: "
                "half` is not trained: use a `finetune` stage before this one"
            )
        if self.compute == "float32" and self.interface == "half":
            raise ValueError("`interface: half` is of a program with `compute: half`")
        return self


class MixedPrecision(StoredOptions):
    """Bits for each weight by its own, chosen by how much the model loses by them."""

    scheme: Literal["mixed_precision"]
    formats: Annotated[
        list[Literal[8, 4, 2, 1, "float16", "keep"]], Field(min_length=2, max_length=6)
    ] = [8, 4, 2]  # noqa: RUF012  pydantic copies defaults
    """What a weight may be stored in: bits as in `weight_only`, `float16`, or `keep`, the weight as
    it is."""
    budget: BitBudget
    """What the choice must keep. Under a budget of bytes the loss is made as small as it can be,
    under a limit of the loss the bytes are."""
    sensitivity: Literal["drift", "loss"] = "drift"
    """What is measured with one weight at a time in each format: the change of the outputs, which
    needs no labels, or the rise of the validation loss."""
    group_size: GroupSize = "auto"
    """Weights of an output channel that share a scale; null gives each channel one scale. `auto` is
    null for 8 bits, where finer scales would take more than they win, and 64 for fewer."""
    symmetric: bool = False
    """Grids around zero: no offsets to store, and zero is exact."""
    clip: Literal["none", "mse"] = "none"
    """`mse` narrows the range of each group to where the squared error is smallest."""

    @model_validator(mode="after")
    def _choice_makes_sense(self) -> Self:
        if len(set(self.formats)) < len(self.formats):
            raise ValueError("`formats` has an entry twice; write each once")
        if self.budget.max_drift is not None and self.sensitivity == "loss":
            raise ValueError(
                "`budget.max_drift` needs `sensitivity: drift`: rises of the loss do not add up to "
                "a drift"
            )
        return self


QuantizeStage = Annotated[
    WeightOnly
    | Codebook
    | SparseWeights
    | HalfPrecision
    | MixedPrecision
    | DynamicInt8
    | StaticInt8,
    Field(discriminator="scheme"),
]


def judged_field(stages: Sequence[object]) -> str | None:
    """Path of the first field of a choice that needs a validation split with targets, or None.

    Args:
        stages: of the recipe.
    """
    for index, stage in enumerate(stages):
        if isinstance(stage, MixedPrecision):
            field = stage.budget.labelled_field
            if field is not None:
                return f"stages.{index}.budget.{field}"
            if stage.sensitivity == "loss":
                return f"stages.{index}.sensitivity"
        elif isinstance(stage, WeightOnly | Codebook) and stage.fall_back is not None:
            field = stage.fall_back.labelled_field
            if field is not None:
                return f"stages.{index}.fall_back.{field}"
    return None


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
    quantising = [
        (index, stage) for index, stage in enumerate(stages) if isinstance(stage, QuantizeOptions)
    ]
    for index, stage in quantising:
        if isinstance(stage, Int8Options) and len(quantising) > 1:
            other = next(at for at, _ in quantising if at != index)
            return (
                f"`stages.{index}` computes in int8, from weights in floating point, and "
                f"`stages.{other}` stores them in another form; keep one of the two"
            )
        if isinstance(stage, HalfPrecision) and stage.compute == "half" and len(quantising) > 1:
            return (
                f"`stages.{index}.compute: half` computes with the weights in 16 bits, and another "
                "`quantize` stage stores some of them otherwise; use `compute: float32`, or leave "
                "the other out"
            )
    return None
