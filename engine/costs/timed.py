r"""The least removal whose measured time is within a limit.

Time is neither exact nor monotone: medians scatter, and an odd number of channels can be slower
than a few more of them, because kernels work on multiples of the vector width. So

1. the largest removal is measured; where even that takes too long, nothing helps;
2. bisection over the amounts measures about :math:`\log_2 n` candidates, those that are too slow
   twice, and ends at an amount that was within the limit, next to one that was not;
3. of that amount the wider plan whose layers are rounded up to whole vectors is tried first: it
   keeps more, and is often no slower;
4. a candidate is taken only when a second measurement is within the limit too. Otherwise larger
   amounts are tried, in steps that double, so that this ends after :math:`\log_2 n` more;
5. what was taken may be far below the limit, because a slow spell made smaller removals look bad.
   Then the search is done once more below it, with fresh measurements.

Two candidates of the same widths are one model as far as time goes, and are measured as one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Candidate = TypeVar("Candidate", bound=Hashable)


@dataclass(frozen=True)
class InTime(Generic[Candidate]):
    """What was found.

    Attributes:
        candidate: the one taken; None where none is fast enough.
        time: its second measurement; of the fastest one where none is.
        measured: measurements made.
    """

    candidate: Candidate | None
    time: float
    measured: int


def within_time(
    candidate: Callable[[int], Candidate],
    aligned: Callable[[int], Candidate | None],
    measure: Callable[[Candidate], float],
    most: int,
    limit: float,
    *,
    tolerance: float = 0.0,
) -> InTime[Candidate]:
    """The least removal that was measured within the limit twice.

    Args:
        candidate: by amount from 1 to `most`, growing; equal ones take equally long.
        aligned: the wider one of an amount, rounded up to whole vectors, if any.
        measure: the median of a fresh measurement.
        most: the largest amount.
        limit: in the unit of `measure`.
        tolerance: how far below the limit, as a share of it, is near enough.
    """
    search = _Search(measure, limit)
    taken = search.least(candidate, aligned, most)
    if taken is None:
        return InTime(None, search.fastest, search.measured)
    amount, one, time = taken
    if amount is not None and amount > 1 and time < (1 - tolerance) * limit:
        again = _Search(measure, limit)
        nearer = again.least(candidate, aligned, amount - 1)
        search.measured += again.measured
        if nearer is not None:
            _, one, time = nearer
    return InTime(one, time, search.measured)


class _Search(Generic[Candidate]):
    def __init__(self, measure: Callable[[Candidate], float], limit: float) -> None:
        self._measure, self._limit = measure, limit
        self._known: dict[Candidate, float] = {}
        self.measured = 0
        self.last = self.fastest = float("inf")

    def least(
        self,
        candidate: Callable[[int], Candidate],
        aligned: Callable[[int], Candidate | None],
        most: int,
    ) -> tuple[int | None, Candidate, float] | None:
        """The amount (None for the wider plan), what it is, and its second measurement."""
        if not self.fits(candidate(most)):
            return None
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.fits(candidate(middle)) else (middle, high)
        wider = aligned(high)
        if wider is not None and wider != candidate(high) and self.fits_twice(wider):
            return None, wider, self.last
        amount, step = high, 1
        while True:
            tried = candidate(amount)
            if self.fits_twice(tried):
                return amount, tried, self.last
            if amount == most:
                return None
            while amount < most and candidate(amount) == tried:
                amount, step = min(amount + step, most), step * 2

    def fits(self, one: Candidate) -> bool:
        """Whether one of its first two measurements is within the limit."""
        if one not in self._known:
            first = self._fresh(one)
            self._known[one] = first if first <= self._limit else min(first, self._fresh(one))
        return self._known[one] <= self._limit

    def fits_twice(self, one: Candidate) -> bool:
        """Whether a fresh one is too."""
        return self.fits(one) and self._fresh(one) <= self._limit

    def _fresh(self, one: Candidate) -> float:
        self.measured += 1
        self.last = self._measure(one)
        self.fastest = min(self.fastest, self.last)
        return self.last
