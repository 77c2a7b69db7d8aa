"""The search by a clock, with clocks whose readings are written down."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from engine.costs.timed import within_time


def clock(times: dict[int, list[float]]) -> Callable[[int], float]:
    """The readings of every candidate in turn; the last one again and again."""

    def measure(candidate: int) -> float:
        own = times[candidate]
        return own.pop(0) if len(own) > 1 else own[0]

    return measure


def none(_: int) -> None:
    return None


def test_the_least_removal_that_is_fast_enough() -> None:
    times = {amount: [10.0 - amount] for amount in range(1, 9)}
    found = within_time(int, none, clock(times), 8, 5.0)
    assert (found.candidate, found.time) == (5, 5.0)
    assert found.measured == 6, "8, 6 and 5 once, 4 twice, and 5 again"


def test_a_second_reading_decides() -> None:
    times = {amount: [10.0 - amount] for amount in range(1, 9)}
    times[5] = [4.9, 5.1]  # a lucky first one
    found = within_time(int, none, clock(times), 8, 5.0, tolerance=0.2)
    assert (found.candidate, found.time) == (6, 4.0)


def test_the_wider_plan_is_taken_where_it_is_no_slower() -> None:
    times = {amount: [10.0 - amount] for amount in range(1, 9)}
    assert within_time(int, lambda _: 3, clock(times), 8, 5.0).candidate == 5
    times[3] = [4.0]
    assert within_time(int, lambda _: 3, clock(times), 8, 5.0).candidate == 3


def test_too_slow_however_much_goes() -> None:
    times = {amount: [10.0 - amount / 10] for amount in range(1, 9)}
    times[8] = [9.5, 9.2]
    found = within_time(int, none, clock(times), 8, 5.0)
    assert (found.candidate, found.time, found.measured) == (None, 9.2, 2)


def test_equal_candidates_are_measured_as_one() -> None:
    asked: list[int] = []

    def measure(width: int) -> float:
        asked.append(width)
        return float(width)

    found = within_time(lambda amount: 8 - amount // 100, none, measure, 800, 3.0)
    assert found.candidate == 3
    assert sorted(asked) == sorted([*set(asked), 3, *(width for width in set(asked) if width > 3)])


def test_a_slow_spell_does_not_take_more_than_needed() -> None:
    times = {amount: [10.0 - amount] for amount in range(1, 9)}
    for amount in (4, 6, 7):
        times[amount] = [30.0, 30.0, *times[amount]]  # the machine was busy
    assert within_time(int, none, clock(times), 8, 5.0, tolerance=0.2).candidate == 5


@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=40),
    st.floats(0.2, 9),
    st.randoms(use_true_random=False),
)
def test_whatever_the_clock_says_two_readings_are_within_the_limit(times, limit, random) -> None:
    readings: dict[int, list[float]] = {}

    def measure(amount: int) -> float:
        reading = times[amount - 1] * random.uniform(0.9, 1.1)
        readings.setdefault(amount, []).append(reading)
        return reading

    most = len(times)
    found = within_time(int, none, measure, most, limit)
    assert found.measured <= 12 * (most.bit_length() + 1)
    if found.candidate is None:
        assert max(readings[most]) > limit
    else:
        assert sum(reading <= limit for reading in readings[found.candidate]) >= 2
        assert found.time in readings[found.candidate]
        assert found.time <= limit
