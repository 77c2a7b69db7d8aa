"""The amount at which a cost is reached, on tables of costs."""

from __future__ import annotations

import pytest

from engine.costs.matching import is_matched, matching_amount
from engine.errors import CriterionDoesNotFit

COSTS = [95.0, 90.0, 80.0, 80.0, 65.0, 51.0, 49.5, 30.0, 20.0]
"""Of the amounts 1 to 9."""


def at(target: float, tolerance: float, costs: list[float] = COSTS) -> int:
    asked: list[int] = []

    def cost(amount: int) -> float:
        asked.append(amount)
        return costs[amount - 1]

    found = matching_amount(cost, len(costs), target, tolerance)
    assert len(set(asked)) <= 6, "bisection, not a walk"
    return found


def test_the_nearest_within_the_tolerance() -> None:
    assert at(50, 0.05) == 7  # 49.5 is half as far away as 51
    assert at(50.5, 0.05) == 6  # 51 is above, nearer, and within 53.0
    assert at(50.9, 0.001) == 7  # 51 is nearer still, and above by more than 0.1 %


def test_steps_that_are_too_coarse_get_less_and_never_more() -> None:
    assert at(60, 0.05) == 6  # 65 is above 63
    assert not is_matched(COSTS[5], 60, 0.05)
    assert is_matched(COSTS[6], 50, 0.01)
    assert not is_matched(COSTS[6], 50, 0.009)


def test_a_plateau_gives_the_smaller_amount() -> None:
    assert at(80, 0.02) == 3
    assert at(94, 0.02) == 1  # 95 is within 95.88, and nearer than 90


def test_a_cost_that_is_never_reached() -> None:
    with pytest.raises(CriterionDoesNotFit, match=r"down to 20 and no further; .* at 10") as caught:
        at(10, 0.5)
    assert "remove less" in caught.value.hint
    assert at(19.9, 0.02) == 9  # above, and within the tolerance


def test_one_amount() -> None:
    assert at(3, 0.1, [3.0]) == 1
