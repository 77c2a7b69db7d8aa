r"""What each round of a schedule brings a cost down to.

Costs take the way that amounts take (`engine.selection.schedule`). From the cost :math:`C_0` before
the stage to the target T in r rounds, round k ends at

.. math:: C_k = C_0 (T / C_0)^{k / r}

so that every round takes the same share of what is left. Under `agp` (Zhu & Gupta 2017) the share
that is gone follows the cubic ramp from :math:`s_i` to :math:`s_f = 1 - T / C_0`:

.. math:: C_k = C_0 (1 - s_k), \qquad s_k = s_f + (s_i - s_f) (1 - k / r)^3

and never below T. The last round ends at T itself.
"""

from __future__ import annotations

from secateur.recipe import Agp, Schedule


def limit_after(
    before: float, target: float, round_number: int, rounds: int, schedule: Schedule | None = None
) -> float:
    """The cost that a round may leave.

    Args:
        before: cost before the stage.
        target: after its last round; below `before`.
        round_number: from 1.
        rounds: all.
        schedule: whether they follow a ramp.
    """
    if round_number >= rounds:
        return target
    if isinstance(schedule, Agp):
        final = 1 - target / before
        gone = final + (schedule.initial - final) * (1 - round_number / rounds) ** 3
        return max(before * (1 - gone), target)
    return before * float((target / before) ** (round_number / rounds))
