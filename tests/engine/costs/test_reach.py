"""The least removal within a limit, on tables and on any falling costs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.costs.reach import least_amount, reach

COSTS = [100.0, 95.0, 90.0, 80.0, 80.0, 65.0, 51.0, 49.5, 30.0]
"""Of the amounts 0 to 8."""


def test_by_hand() -> None:
    for limit, amount in [(100, 0), (99, 1), (95, 1), (94.9, 2), (80, 3), (50, 7), (30, 8)]:
        assert least_amount(COSTS.__getitem__, 8, limit) == amount, limit
    assert least_amount(COSTS.__getitem__, 8, 29.9) is None


falling = st.lists(st.integers(0, 1000), min_size=2, max_size=60).map(
    lambda drops: [float(sum(drops[place:]) + 1) for place in range(len(drops) + 1)]
)


@given(falling, st.floats(0.01, 1.2))
def test_within_the_limit_and_one_step_less_is_not(costs: list[float], share: float) -> None:
    limit = share * costs[0]
    found = least_amount(costs.__getitem__, len(costs) - 1, limit)
    if found is None:
        assert costs[-1] > limit
        return
    assert costs[found] <= limit
    assert found == 0 or costs[found - 1] > limit


@given(falling, st.floats(0.05, 1.0), st.floats(0.5, 2.0), st.integers(-3, 3))
def test_an_estimate_that_is_wrong_changes_nothing(
    costs: list[float], share: float, scale: float, shift: int
) -> None:
    limit, most = share * costs[0], len(costs) - 1

    def estimate(amount: int) -> float:
        return costs[amount] * scale + shift + 4

    assert reach(estimate, costs.__getitem__, most, limit) == reach(
        None, costs.__getitem__, most, limit
    )


def test_a_right_estimate_has_one_model_cut() -> None:
    cut: list[int] = []

    def exact(amount: int) -> float:
        cut.append(amount)
        return COSTS[amount]

    assert reach(COSTS.__getitem__, exact, 8, 50) == 7
    assert cut == [7]
