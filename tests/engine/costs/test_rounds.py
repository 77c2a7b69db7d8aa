"""The way of a cost over the rounds of a schedule."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secateur.recipe import Agp, Iterative

from engine.costs.rounds import limit_after


def test_every_round_keeps_the_same_share() -> None:
    limits = [
        limit_after(1000, 125, number, 3, Iterative(kind="iterative")) for number in (1, 2, 3)
    ]
    assert limits == [pytest.approx(500), pytest.approx(250), 125]


def test_a_ramp_by_hand() -> None:
    # s_f = 0.8; s_1 = 0.8 - 0.8 / 8 = 0.7; with an initial 0.4: 0.8 - 0.4 / 8 = 0.75.
    ramp = Agp(kind="agp", rounds=2)
    assert limit_after(1000, 200, 1, 2, ramp) == pytest.approx(300)
    assert limit_after(1000, 200, 2, 2, ramp) == 200
    late = Agp(kind="agp", rounds=2, initial=0.4)
    assert limit_after(1000, 200, 1, 2, late) == pytest.approx(250)


@given(
    st.floats(1, 1e9), st.floats(0.01, 0.99), st.integers(1, 20), st.booleans(), st.floats(0, 0.99)
)
def test_falls_and_ends_at_the_target(
    before: float, share: float, rounds: int, ramp: bool, initial: float
) -> None:
    schedule = Agp(kind="agp", initial=initial) if ramp else Iterative(kind="iterative")
    target = share * before
    limits = [limit_after(before, target, number + 1, rounds, schedule) for number in range(rounds)]
    assert limits[-1] == target
    assert all(target <= limit <= before for limit in limits)
    assert all(late <= early * (1 + 1e-12) for early, late in pairwise(limits))
