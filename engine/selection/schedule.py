"""When how much is removed: the total after each round.

Of n units in the original, a fraction a is to go in r rounds. After round k the fraction that is
kept is

    (1 - a)^(k / r)

so every round removes the same share of what is left: the steps are large while the network is
redundant and small when it is not (Han et al. 2015 prune iteratively; the even share per round is
the rule of Frankle & Carbin 2019; Renda et al. 2020 keep it). Under `agp` (Zhu & Gupta 2017,
equation 1) the share removed goes from s_i to s_f = a along

    s_k = s_f + (s_i - s_f) (1 - k / r)^3,   k = 0 .. r

where k = 0 matters to single weights alone, whose ramp starts at s_i while they train. Totals are
counted against the ORIGINAL number of units and the last one is exact: round(a n), halves up,
computed in decimal arithmetic from the number as written, so 0.35 of 10 is 4 and never 3 because
of binary rounding.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from secateur.recipe import Agp, Allocation, Imp, ImpRewind, Iterative, LrRewind, Schedule


def rounds_of(schedule: Schedule) -> int:
    """Number of prune steps, or of growths while training."""
    several = Iterative | LrRewind | Agp | Imp | ImpRewind
    return schedule.rounds if isinstance(schedule, several) else 1


def removed_after(
    allocation: Allocation,
    units: int,
    round_number: int,
    rounds: int,
    schedule: Schedule | None = None,
) -> int:
    """How many of `units` original units are gone after a round (1 is the first).

    Never decreases with the round, never exceeds `units`, and is exact after the last.
    """
    return removed_of(final_count(allocation, units), units, round_number, rounds, schedule)


def removed_of(
    final: int, units: int, round_number: int, rounds: int, schedule: Schedule | None = None
) -> int:
    """The same where it is known how many are to go in the end."""
    if round_number >= rounds:
        return final
    if isinstance(schedule, Agp):
        share = final / units
        share += (schedule.initial - share) * (1 - round_number / rounds) ** 3
        return min(round(units * share), final)
    if final >= units:
        return round(final * round_number / rounds)
    kept: float = (1 - final / units) ** (round_number / rounds)
    return min(round(units * (1 - kept)), final)


def final_count(allocation: Allocation, units: int) -> int:
    """How many of `units` go in all: the count, or the fraction rounded half up."""
    if allocation.count is not None:
        return min(allocation.count, units)
    if allocation.amount is None:
        raise ValueError("neither `amount` nor `count`: the number depends on the layer")
    return share_of(allocation.amount, units)


def share_of(amount: float, units: int) -> int:
    """A fraction of `units`, rounded half up as the fraction is written in decimals."""
    share = Decimal(str(amount)) * units
    return int(share.to_integral_value(rounding=ROUND_HALF_UP))
