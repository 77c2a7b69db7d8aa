"""What a few seeds tell, by one rule for all claims.

Runs of one seed share data, initial weights and orders as far as they can, so variants are
compared in pairs. For the differences d_1 .. d_n of n seeds (A minus B),

    mean d = sum d_i / n,    s = sqrt(sum (d_i - mean d)^2 / (n - 1)),    se = s / sqrt(n),

and t the 95 % point of Student's distribution with n - 1 degrees of freedom (2.13 for 5 seeds):

    A is above B        mean d - t se > 0          (one-sided paired t test at 5 %)
    A is no worse       mean d - t se > -1 point   (non-inferiority at 5 %, margin one point)

A point is a hundredth: of the 540 test images a little more than five.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from scipy.stats import t as student

from bench.papers.records import Record

MARGIN = 0.01
LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of `n` values; the deviation of one value is 0."""

    mean: float
    deviation: float
    n: int


@dataclass(frozen=True)
class Difference:
    """A minus B over the seeds that both have.

    Attributes:
        mean: of the differences.
        lowest: what the mean is above with 95 % confidence; minus infinity with one seed.
        seeds: pairs.
    """

    mean: float
    lowest: float
    seeds: int

    @property
    def above(self) -> bool:
        """A is above B."""
        return self.lowest > 0

    @property
    def no_worse(self) -> bool:
        """A is at most a point below B."""
        return self.lowest > -MARGIN


def summary(values: Sequence[float]) -> Summary:
    """Of at least one value."""
    mean = sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    return Summary(mean, sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0, len(values))


def figure_by_seed(records: Iterable[Record], variant: str, figure: str) -> dict[int, float]:
    """A figure of one variant."""
    return {
        record.seed: record.figures[figure]
        for record in records
        if record.variant == variant and figure in record.figures
    }


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """Of two figures by seed.

    Raises:
        ValueError: no seed has both.
    """
    shared = sorted(a.keys() & b.keys())
    if not shared:
        raise ValueError("no seed has both figures: run the claim first")
    found = summary([a[seed] - b[seed] for seed in shared])
    if found.n == 1:
        return Difference(found.mean, float("-inf"), 1)
    bound = float(student.ppf(LEVEL, found.n - 1)) * found.deviation / sqrt(found.n)
    return Difference(found.mean, found.mean - bound, found.n)
