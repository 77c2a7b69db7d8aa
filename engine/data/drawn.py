"""Whether rows of a split are the same in every epoch."""

from __future__ import annotations

from typing import Any

from secateur.recipe_data import Flip, RandomCrop

from engine.data.columns import Column, columns_in
from engine.data.splits import Split
from engine.data.transforms import Transformed


def drawn_anew(split: Split) -> bool:
    """Whether random transforms change the inputs from epoch to epoch."""
    return any(_drawn(column) for column in columns_in(split.inputs))


def _drawn(column: Any) -> bool:
    if not isinstance(column, Column):
        return False
    if isinstance(column, Transformed) and any(
        isinstance(transform, Flip | RandomCrop) for transform in column.chain.transforms
    ):
        return True
    return any(_drawn(inside) for inside in vars(column).values())
