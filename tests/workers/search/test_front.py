"""Pareto fronts and knees, by hand and by their definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.search.front import dominates, knee, pareto_front

POINTS = [(1.0, 9.0), (2.0, 4.0), (3.0, 5.0), (6.0, 1.0), (6.0, 2.0), (7.0, 0.5), (1.0, 9.0)]


def test_a_front_by_hand() -> None:
    # (3, 5) is worse than (2, 4) in both; (6, 2) than (6, 1) in one; the last equals the first.
    assert pareto_front(POINTS) == [0, 1, 3, 5]
    assert pareto_front([]) == []
    assert pareto_front([(2.0,), (1.0,), (1.0,)]) == [1]


def test_domination() -> None:
    assert dominates((1, 2), (1, 3))
    assert not dominates((1, 2), (1, 2))
    assert not dominates((1, 3), (2, 2))


def test_a_knee_by_hand() -> None:
    # Scaled to [0, 1]: sums 0 + 1, 1/6 + 3.5/8.5 = 0.578, 5/6 + 0.5/8.5 = 0.892, 1 + 0.
    front = [POINTS[place] for place in pareto_front(POINTS)]
    assert knee(front) == 1
    # The same, with the sums moved by another scale: nothing depends on units.
    assert knee([(1000 * x, y / 7) for x, y in front]) == 1


def test_a_knee_of_three_objectives() -> None:
    # Sums: 0 + 1 + 1/2, 1 + 0 + 1/2, 1/4 + 1/4 + 0, 1/2 + 1/2 + 1.
    assert knee([(0, 4, 1), (4, 0, 1), (1, 1, 0), (2, 2, 2)]) == 2


def test_a_knee_where_all_are_ends() -> None:
    assert knee([(5.0, 1.0), (1.0, 5.0)]) == 1  # the best by the first objective
    assert knee([(3.0, 3.0)]) == 0
    # On the straight line between its ends no point is below it, rounding or not.
    assert knee([(0.7, 0.3), (1.0, 0.0), (0.0, 1.0), (0.1, 0.9)]) == 2


values = st.integers(0, 6).map(float)
point_lists = st.integers(1, 3).flatmap(
    lambda size: st.lists(st.tuples(*[values] * size), min_size=1, max_size=12)
)


@given(point_lists)
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
    front = pareto_front(points)
    assert front
    for place, point in enumerate(points):
        beaten = any(dominates(other, point) for other in points)
        if place in front:
            assert not beaten
        else:
            assert beaten or point in [points[one] for one in front if one < place]
    assert len({points[place] for place in front}) == len(front)
    assert 0 <= knee([points[place] for place in front]) < len(front)
