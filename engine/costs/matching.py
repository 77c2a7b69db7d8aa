r"""The amount at which a criterion reaches a given cost.

Selections grow with the amount t = 1 .. n and each holds the one before it, so their cost falls
with t. With the target T and the tolerance e, bisection finds

.. math:: t^* = \min \{t : \text{cost}(t) \le T\}

and the step before it is taken instead where it is nearer to T and within :math:`(1 + e) T`. So a
contestant may have a little more than the target, and where single channels are coarser steps than
the tolerance it has less: no one wins by having kept more.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import CriterionDoesNotFit

Cost = Callable[[int], float]


def is_matched(cost: float, target: float, tolerance: float) -> bool:
    """Whether a cost is as near to the target as it should be."""
    return abs(cost - target) <= tolerance * target


def matching_amount(cost: Cost, most: int, target: float, tolerance: float) -> int:
    """The amount whose cost is nearest to the target and not above it by more than the tolerance.

    Args:
        cost: by amount, from 1; never rises.
        most: the largest amount.
        target: what it should cost.
        tolerance: as a share of the target.

    Raises:
        CriterionDoesNotFit: even the largest amount costs more.
    """
    if cost(most) > (1 + tolerance) * target:
        raise CriterionDoesNotFit(
            f"it can bring the model down to {cost(most):,.0f} and no further; the others are "
            f"compared at {target:,.0f}",
            hint="what it cannot judge stays whole: remove less, or leave it out",
            where="criterion",
        )
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= target else (middle, high)
    if low >= 1 and cost(low) <= (1 + tolerance) * target:
        return low if cost(low) - target < abs(target - cost(high)) else high
    return high
