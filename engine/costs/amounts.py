"""The amounts that a search over an allocation runs through."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from secateur.recipe import Allocation

STEPS = 10_000
"""Fractions there are: hundredths of a percent."""


@dataclass(frozen=True)
class Amounts:
    """Every amount of an allocation.

    Attributes:
        most: the largest; the least is 1, and 0 stands for nothing.
        at: the allocation of a number from 1 to `most`, which says how much and nothing else.
    """

    most: int
    at: Callable[[int], Allocation]


def amounts_of(allocation: Allocation, sizes: Collection[int]) -> Amounts:
    """All amounts: of one ranking by single units, of layers by the fraction they all lose.

    Args:
        allocation: with `scope` and `distribution`; a local `count` runs through counts.
        sizes: units of every layer.
    """
    if allocation.scope == "global":
        most, fraction = sum(sizes) - 1, False
    elif allocation.count is not None:
        most, fraction = max(sizes, default=1) - 1, False
    else:
        most, fraction = STEPS - 1, True

    def at(number: int) -> Allocation:
        amount, count = (number / STEPS, None) if fraction else (None, number)
        given = {"amount": amount, "count": count, "target": None}
        return allocation.model_copy(update=given)

    return Amounts(max(most, 1), at)
