"""Comparing trials: which are the best, and which of the best to take.

Let every objective be turned so that less is better. A trial *dominates* another when it is no
worse in any objective and better in one; the *Pareto front* is what none dominates.

The *knee* is where giving up more of one objective stops paying in the others. With objectives
scaled to [0, 1] over the front, the line through the two ends of a front of two objectives is
x + y = 1, and the knee is the point furthest below it (Das 1999, "On characterizing the knee of the
Pareto curve"): the distance is (1 - x - y) / sqrt(2), so it is the point of the least sum. For more
objectives the plane is that through the unit points, and the rule stays the same. Of equal sums, as
on a front of two points, which is all ends, the best by the first objective is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

Values = Sequence[float]


def dominates(one: Values, other: Values) -> bool:
    """Whether the first is no worse anywhere and better somewhere; less is better."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def pareto_front(points: Sequence[Values]) -> list[int]:
    """Places of the points that none dominates, in the order given; less is better.

    Of points that are equal in everything the first one stands for all.
    """
    return [
        place
        for place, point in enumerate(points)
        if not any(
            dominates(other, point) or (rival < place and tuple(other) == tuple(point))
            for rival, other in enumerate(points)
        )
    ]


def knee(front: Sequence[Values]) -> int:
    """Place of the knee among the points of a front; less is better."""
    lows = [min(column) for column in zip(*front, strict=True)]
    highs = [max(column) for column in zip(*front, strict=True)]

    def total(point: Values) -> float:
        scaled = (
            (value - low) / (high - low) if high > low else 0.0
            for value, low, high in zip(point, lows, highs, strict=True)
        )
        # rounded, so that sums that are equal on paper are equal here
        return round(sum(scaled), 12)

    return min(range(len(front)), key=lambda place: (total(front[place]), *front[place]))
