r"""The least removal that brings a cost down to a limit.

Removals grow with their amount t = 0 .. n and each holds the one before it, so that a cost counted
from shapes never rises with t. With the limit L, bisection finds

.. math:: t^* = \min \{t : \text{cost}(t) \le L\}

which keeps the most that may be kept: one step less would cost more than L.

Estimates by shapes are cheap, and what counts is the model that is really cut. Where both differ
at the amount found, the estimate is scaled to agree there and the search repeated; what does not
settle is searched on models that are cut.
"""

from __future__ import annotations

from collections.abc import Callable

Cost = Callable[[int], float]
_MOST_CORRECTIONS = 4


def least_amount(cost: Cost, most: int, limit: float) -> int | None:
    """The least amount from 0 to `most` whose cost is within the limit; None where none is."""
    if cost(0) <= limit:
        return 0
    if cost(most) > limit:
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= limit else (middle, high)
    return high


def reach(estimate: Cost | None, exact: Cost, most: int, limit: float) -> int | None:
    """The same for costs that are estimated first and then taken from what is cut.

    Args:
        estimate: by shapes; None where they do not tell.
        exact: of the model that is cut; each amount is asked for once.
        most: the largest amount.
        limit: what it may cost.
    """
    known: dict[int, float] = {}

    def cost(amount: int) -> float:
        if amount not in known:
            known[amount] = exact(amount)
        return known[amount]

    if estimate is None:
        return least_amount(cost, most, limit)
    scale = 1.0
    for _ in range(_MOST_CORRECTIONS):
        found = least_amount(_scaled(estimate, scale), most, limit)
        amount = most if found is None else found
        real, told = cost(amount), estimate(amount) * scale
        if abs(real - told) > 1e-9 * abs(told):
            if told == 0:
                break
            scale *= real / told
            continue
        if real > limit:
            return None
        # A corrected estimate agrees here and may not one step before.
        while scale != 1.0 and amount > 0 and cost(amount - 1) <= limit:
            amount -= 1
        return amount
    return least_amount(cost, most, limit)


def _scaled(cost: Cost, scale: float) -> Cost:
    return lambda amount: cost(amount) * scale
