from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secateur.recipe import Allocation

from engine.selection.schedule import final_count, removed_after


def test_half_of_hundred_in_two_rounds():
    # keep 0.5^(1/2) = 0.7071 after the first: 100 - 70.71 = 29.29
    allocation = Allocation(amount=0.5)
    assert [removed_after(allocation, 100, k, 2) for k in (1, 2)] == [29, 50]


def test_four_rounds_of_three_quarters():
    # kept: 0.25^(1/4) = 0.7071, 0.5, 0.3536, 0.25 of 1000
    allocation = Allocation(amount=0.75)
    assert [removed_after(allocation, 1000, k, 4) for k in (1, 2, 3, 4)] == [293, 500, 646, 750]


@pytest.mark.parametrize(
    ("amount", "units", "expected"),
    [(0.35, 10, 4), (0.15, 10, 2), (0.145, 100, 15), (0.5, 3, 2), (0.1, 4, 0), (0.5, 7, 4)],
)
def test_fraction_is_rounded_half_up_in_decimals(amount, units, expected):
    assert final_count(Allocation(amount=amount), units) == expected


def test_count_is_capped_by_what_is_there():
    assert final_count(Allocation(count=12), 10) == 10


@given(
    amount=st.floats(0.01, 0.99),
    units=st.integers(1, 10_000),
    rounds=st.integers(1, 20),
)
def test_never_decreases_and_ends_exactly(amount, units, rounds):
    allocation = Allocation(amount=amount)
    totals = [removed_after(allocation, units, k, rounds) for k in range(1, rounds + 1)]
    assert totals == sorted(totals)
    assert totals[-1] == final_count(allocation, units)
    assert abs(totals[-1] - amount * units) <= 0.5 + 1e-6
