from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secateur.recipe import Agp, Allocation, LrRewind

from engine.selection.schedule import final_count, removed_after


def test_half_of_hundred_in_two_rounds():
    # keep 0.5^(1/2) = 0.7071 after the first: 100 - 70.71 = 29.29
    allocation = Allocation(amount=0.5)
    assert [removed_after(allocation, 100, k, 2) for k in (1, 2)] == [29, 50]


def test_four_rounds_of_three_quarters():
    # kept: 0.25^(1/4) = 0.7071, 0.5, 0.3536, 0.25 of 1000
    allocation = Allocation(amount=0.75)
    assert [removed_after(allocation, 1000, k, 4) for k in (1, 2, 3, 4)] == [293, 500, 646, 750]


def test_cubic_ramp_by_hand():
    # 0.64 (1 - (1 - k / 4)^3) of 1000: 0.64 times 1 - 27/64, 1 - 8/64, 1 - 1/64, 1
    allocation, ramp = Allocation(amount=0.64), Agp(kind="agp")
    totals = [removed_after(allocation, 1000, k, 4, ramp) for k in (0, 1, 2, 3, 4)]
    assert totals == [0, 370, 560, 630, 640]
    # from 0.32 on: 0.64 - 0.32 (1, 27/64, 8/64, 1/64, 0)
    late = Agp(kind="agp", initial=0.32)
    totals = [removed_after(allocation, 1000, k, 4, late) for k in (0, 1, 2, 3, 4)]
    assert totals == [320, 505, 600, 635, 640]
    assert removed_after(Allocation(count=64), 100, 2, 4, ramp) == 56


def test_lr_rewind_takes_the_same_share_of_what_is_left():
    # 0.488 = 1 - 0.8^3: 20 % a round leaves 800, 640, 512
    schedule = LrRewind.model_validate({"kind": "lr_rewind", "finetune": {}})
    totals = [removed_after(Allocation(amount=0.488), 1000, k, 3, schedule) for k in (1, 2, 3)]
    assert totals == [200, 360, 488]


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
    schedule=st.sampled_from([None, Agp(kind="agp"), Agp(kind="agp", initial=0.009)]),
)
def test_never_decreases_and_ends_exactly(amount, units, rounds, schedule):
    allocation = Allocation(amount=amount)
    totals = [removed_after(allocation, units, k, rounds, schedule) for k in range(1, rounds + 1)]
    assert totals == sorted(totals)
    assert totals[-1] == final_count(allocation, units)
    assert abs(totals[-1] - amount * units) <= 0.5 + 1e-6
