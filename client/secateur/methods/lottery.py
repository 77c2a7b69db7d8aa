"""Lottery tickets and what they are compared with."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import Imp, ImpRewind
from secateur.resources import Method

LOTTERY_SCHEDULES: list[Method] = [
    Method(
        name="imp",
        kind="schedule",
        summary=(
            "Train, remove the same share of the weights that are left, put the survivors back to "
            "their initial weights, and again; then train the ticket. The upload is untrained, "
            "and the job keeps its weights as the initial ones."
        ),
        formula="W = m_r . W_0;  |m_r| / |m_0| = (1 - amount)^(r / R)",
        source="Frankle & Carbin 2019, The Lottery Ticket Hypothesis (ICLR)",
        data="training",
        cost="(R + 1) * training.epochs epochs of training, and one copy of the weights",
        schema=schema_of(Imp),
    ),
    Method(
        name="imp_rewind",
        kind="schedule",
        summary=(
            "Like imp, but survivors go back to step k of the first training. With `copies` the "
            "ticket is trained several times from there with other orders of the data, and the "
            "report says whether the results lie in one linearly connected minimum."
        ),
        formula=(
            "W = m_r . W_k;  barrier = max over a of E(a W1 + (1 - a) W2) - (E(W1) + E(W2)) / 2"
        ),
        source=(
            "Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis (ICML)"
        ),
        data="training",
        cost=(
            "(R + n) * training.epochs epochs of training for n copies, n + 1 copies of the "
            "weights, and 11 evaluations for every pair of copies"
        ),
        schema=schema_of(ImpRewind),
    ),
]
