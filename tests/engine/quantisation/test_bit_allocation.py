"""Formats under a budget, against hand-computed cases and against trying every choice."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.quantisation.bit_allocation import Allocation, Budget, BudgetTooSmall, choose_bits

COSTS = {"a": {"8": 80, "4": 40, "2": 20}, "b": {"8": 160, "4": 80, "2": 40}}
LOSSES = {"a": {"8": 0.0, "4": 1.0, "2": 9.0}, "b": {"8": 0.0, "4": 3.0, "2": 12.0}}


@pytest.mark.parametrize(
    ("limit", "formats", "size", "loss"),
    [
        (1000, {"a": "8", "b": "8"}, 240, 0.0),
        (240, {"a": "8", "b": "8"}, 240, 0.0),
        (239, {"a": "4", "b": "8"}, 200, 1.0),
        (199, {"a": "8", "b": "4"}, 160, 3.0),
        (120, {"a": "4", "b": "4"}, 120, 4.0),
        # a to 2 bits (12 for 100 bytes) rather than b (13 for 80).
        (100, {"a": "2", "b": "4"}, 100, 12.0),
        (80, {"a": "4", "b": "2"}, 80, 13.0),
        (60, {"a": "2", "b": "2"}, 60, 21.0),
    ],
)
def test_bytes_hand_computed(limit: int, formats: dict[str, str], size: int, loss: float) -> None:
    assert choose_bits(COSTS, LOSSES, Budget("bytes", limit)) == Allocation(formats, size, loss)


@pytest.mark.parametrize(
    ("limit", "formats", "size"),
    [
        (0.0, {"a": "8", "b": "8"}, 240),
        (1.0, {"a": "4", "b": "8"}, 200),
        (3.9, {"a": "8", "b": "4"}, 160),
        (4.0, {"a": "4", "b": "4"}, 120),
        (12.0, {"a": "2", "b": "4"}, 100),
        (math.inf, {"a": "2", "b": "2"}, 60),
    ],
)
def test_sensitivity_hand_computed(limit: float, formats: dict[str, str], size: int) -> None:
    found = choose_bits(COSTS, LOSSES, Budget("sensitivity", limit))
    assert (found.formats, found.bytes) == (formats, size)


def test_too_small_a_budget_says_what_is_possible() -> None:
    with pytest.raises(BudgetTooSmall, match="smallest possible is 60") as raised:
        choose_bits(COSTS, LOSSES, Budget("bytes", 59))
    assert raised.value.smallest == 60
    least = {"a": {"4": 1.0}, "b": {"4": 3.0}}
    with pytest.raises(BudgetTooSmall) as raised:
        choose_bits({"a": {"4": 40}, "b": {"4": 80}}, least, Budget("sensitivity", 3.5))
    assert raised.value.smallest == 4.0


def test_a_format_that_cannot_be_used_is_not_used() -> None:
    broken = LOSSES | {"a": {"8": 0.0, "4": math.inf, "2": math.inf}}
    assert choose_bits(COSTS, broken, Budget("bytes", 130)).formats == {"a": "8", "b": "2"}
    with pytest.raises(ValueError, match="a has no format"):
        choose_bits({"a": {"2": 1}}, {"a": {"2": math.inf}}, Budget("bytes", 9))


@pytest.mark.parametrize("value", [math.nan, -1.0])
def test_figures_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no figures to choose by"):
        choose_bits({"a": {"2": 1}}, {"a": {"2": value}}, Budget("bytes", 9))
    with pytest.raises(ValueError, match="no figures to choose by"):
        choose_bits({"a": {"2": value}}, {"a": {"2": 1}}, Budget("bytes", 9))


def test_tables_must_match() -> None:
    with pytest.raises(ValueError, match="same weights"):
        choose_bits(COSTS, {"a": LOSSES["a"]}, Budget("bytes", 100))
    with pytest.raises(ValueError, match="same formats"):
        choose_bits(COSTS, LOSSES | {"a": {"8": 0.0}}, Budget("bytes", 100))


def test_less_is_spent_where_it_loses_nothing() -> None:
    costs = {"a": {"8": 80, "4": 40}, "b": {"8": 80, "4": 30}}
    losses = {"a": {"8": 0.0, "4": 2.0}, "b": {"8": 0.0, "4": 2.0}}
    # One of the two must go down; b is the smaller then.
    assert choose_bits(costs, losses, Budget("bytes", 130)) == Allocation(
        {"a": "8", "b": "4"}, 110, 2.0
    )


def test_large_figures_are_added_exactly() -> None:
    billion = 10**9
    costs = {str(n): {"8": 8 * billion + n, "4": 4 * billion} for n in range(12)}
    losses = {str(n): {"8": 0.0, "4": 1e-9} for n in range(12)}
    # Five may stay at 8 bits, and no byte more: 4 * 12 + 4 * 5 billion, and 0 + 1 + 2 + 3 + 4.
    limit = 68 * billion + 10
    found = choose_bits(costs, losses, Budget("bytes", limit))
    assert found.bytes <= limit
    assert found.sensitivity == pytest.approx(7e-9)
    assert list(found.formats.values()).count("8") == 5


@st.composite
def _instances(draw: st.DrawFn) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    costs, losses = {}, {}
    for number in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 400))
        count = draw(st.integers(1, 3))
        costs[str(number)] = {form: size * int(form) for form in ("8", "4", "2")[:count]}
        losses[str(number)] = {
            form: draw(st.sampled_from([0.0, 1e-7, 0.001, 0.5, 1.0, 3.0, 250.0]))
            for form in costs[str(number)]
        }
    return costs, losses


@settings(max_examples=60, deadline=None)
@given(instance=_instances(), share=st.floats(0.0, 1.0), of=st.sampled_from(["bytes", "loss"]))
def test_no_choice_is_better(
    instance: tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]], share: float, of: str
) -> None:
    costs, losses = instance
    every = [
        (
            sum(costs[name][form] for name, form in zip(costs, forms, strict=True)),
            math.fsum(losses[name][form] for name, form in zip(costs, forms, strict=True)),
        )
        for forms in product(*costs.values())
    ]
    at = 0 if of == "bytes" else 1
    low, high = min(one[at] for one in every), max(one[at] for one in every)
    budget = Budget("bytes" if of == "bytes" else "sensitivity", low + share * (high - low))
    found = choose_bits(costs, losses, budget)
    fitting = [one for one in every if one[at] <= budget.limit]
    best = min((one[1 - at], one[at]) for one in fitting)
    got = (found.bytes, found.sensitivity)
    assert got[at] <= budget.limit
    # HiGHS compares objectives to about twelve digits of the largest figure.
    assert got[1 - at] == pytest.approx(best[0], rel=1e-9, abs=1e-9)
    assert found.formats.keys() == costs.keys()
