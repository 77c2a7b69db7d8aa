"""A cost that a prune stage is to reach, instead of an amount that it is to remove."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from secateur.recipe_base import RecipeModel
from secateur.recipe_criterion import Granularity

Cost = Literal["params", "macs", "bytes", "latency_ms"]

_REACHED_BY: dict[str, tuple[Cost, ...]] = {
    "channel": ("params", "macs", "bytes", "latency_ms"),
    "head": ("params", "macs", "bytes", "latency_ms"),
    "layer": ("params", "macs", "bytes", "latency_ms"),
    "element": ("params",),
}
"""The costs that each granularity brings down; `n_m` takes no allocation."""
_WHY_NOT: dict[str, str] = {
    "macs": "masks leave every multiplication where it is",
    "bytes": "masked weights are stored as zeros in a file of the same size",
    "latency_ms": "dense kernels multiply zeros as they multiply anything else",
}


class CostTarget(RecipeModel):
    """The largest model that costs no more than this: `share` of what it costs before the stage, or
    `at_most` in the cost's own unit."""

    of: Cost
    """`params`: parameters (of single weights those that no mask holds at zero). `macs`:
    multiply-accumulates of one sample. `bytes`: of the model's file. `latency_ms`: median
    milliseconds of one call, measured on the worker."""
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the cost before the stage."""
    at_most: Annotated[float, Field(gt=0)] | None = None
    """In parameters, multiply-accumulates, bytes or milliseconds."""
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """How far below the target, as a share of it, still counts as matched. The result is never
    above it; where single channels are larger steps than this, the report says what was reached."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """`latency_ms`: samples per call; left out, the first of `measure.batch_sizes`."""

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if (self.share is None) == (self.at_most is None):
            raise ValueError(
                "give exactly one of `share` (of the cost before the stage, between 0 and 1) and "
                "`at_most` (the cost itself)"
            )
        if self.batch_size is not None and self.of != "latency_ms":
            raise ValueError(
                f"`batch_size` belongs to `of: latency_ms`; `{self.of}` does not depend on it"
            )
        return self


def target_fault(granularity: Granularity, target: CostTarget | None) -> str | None:
    """Why what is removed cannot bring that cost down, or None."""
    if target is None or target.of in _REACHED_BY[granularity]:
        return None
    return (
        f"`target.of: {target.of}` cannot be reached by granularity `{granularity}`: "
        f"{_WHY_NOT[target.of]}. Use `of: params`, or granularity `channel`"
    )
