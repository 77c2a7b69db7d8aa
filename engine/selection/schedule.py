"""When how much is removed: the total after each round.

Of n units in the original, a fraction a is to go in r rounds. After round k the fraction that is
kept is

    (1 - a)^(k / r)

so every round removes the same share of what is left: the steps are large while the network is
redundant and small when it is not (Han et al. 2015 prune iteratively; the even share per round is
the rule of Frankle & Carbin 2019). Totals are counted against the ORIGINAL number of units and the
last one is exact: round(a n), halves up, computed in decimal arithmetic from the number as
written, so 0.35 of 10 is 4 and never 3 because of binary rounding.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from secateur.recipe import Allocation, Imp, ImpRewind, Iterative, Schedule


def rounds_of(schedule: Schedule) -> int:
    """Number of prune steps."""
    return schedule.rounds if isinstance(schedule, Iterative | Imp | ImpRewind) else 1


def removed_after(allocation: Allocation, units: int, round_number: int, rounds: int) -> int:
    """How many of `units` original units are gone after a round (1 is the first).

    Never decreases with the round, never exceeds `units`, and is exact after the last.
    """
    final = final_count(allocation, units)
    if round_number >= rounds or final >= units:
        return final if round_number >= rounds else round(final * round_number / rounds)
    kept: float = (1 - final / units) ** (round_number / rounds)
    return min(round(units * (1 - kept)), final)


def final_count(allocation: Allocation, units: int) -> int:
    """How many of `units` go in all: the count, or the fraction rounded half up."""
    if allocation.count is not None:
        return min(allocation.count, units)
    share = Decimal(str(allocation.amount)) * units
    return int(share.to_integral_value(rounding=ROUND_HALF_UP))
