"""Means, deviations and the rule by which claims are judged, by hand."""

from __future__ import annotations

import pytest

from bench.papers.records import Record
from bench.papers.statistics import difference, figure_by_seed, summary


def test_mean_and_sample_deviation() -> None:
    found = summary([1.0, 2.0, 3.0, 4.0])
    # Squares 2.25 + 0.25 + 0.25 + 2.25 = 5 over n - 1 = 3.
    assert (found.mean, found.n) == (2.5, 4)
    assert found.deviation == pytest.approx(1.2909944)
    assert summary([7.0]).deviation == 0.0


def test_a_difference_is_taken_in_pairs_of_seeds() -> None:
    a = {0: 0.92, 1: 0.94, 2: 0.96, 3: 0.98, 4: 1.00, 9: 0.0}
    b = {0: 0.91, 1: 0.92, 2: 0.93, 3: 0.94, 4: 0.95, 7: 1.0}
    found = difference(a, b)
    # Differences 1 .. 5 points: mean 3, s = sqrt(2.5) = 1.5811, se = 0.70711, t = 2.13185.
    assert found.seeds == 5
    assert found.mean == pytest.approx(0.03)
    assert found.lowest == pytest.approx(0.03 - 2.13185 * 0.0070711, abs=1e-7)
    assert found.above
    assert found.no_worse


@pytest.mark.parametrize(
    ("differences", "above", "no_worse"),
    [
        ([0.01, 0.01, 0.01, 0.01, 0.011], True, True),
        ([0.00, 0.01, -0.01, 0.005, -0.005], False, True),  # lowest -0.75 points
        ([0.00, 0.02, -0.02, 0.01, -0.01], False, False),  # lowest -1.5 points
        ([-0.02, -0.02, -0.02, -0.02, -0.021], False, False),
    ],
)
def test_the_rule(differences: list[float], above: bool, no_worse: bool) -> None:
    found = difference(dict(enumerate(differences)), dict.fromkeys(range(5), 0.0))
    assert (found.above, found.no_worse) == (above, no_worse)


def test_one_seed_tells_nothing() -> None:
    found = difference({0: 1.0}, {0: 0.0})
    assert not found.above
    assert not found.no_worse
    with pytest.raises(ValueError, match="no seed has both"):
        difference({0: 1.0}, {1: 0.0})


def test_a_figure_of_one_variant() -> None:
    records = [
        Record("c", "a", 0, {"accuracy": 0.5}, 1.0, ""),
        Record("c", "b", 0, {"accuracy": 0.6}, 1.0, ""),
        Record("c", "a", 1, {"dense": 0.7}, 1.0, ""),
    ]
    assert figure_by_seed(records, "a", "accuracy") == {0: 0.5}
