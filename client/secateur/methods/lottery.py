"""Lottery tickets and what they are compared with."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import Baseline, Imp, ImpRewind
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

BASELINES: list[Method] = [
    Method(
        name="scratch_e",
        kind="baseline",
        summary=(
            "The result's architecture, with its masks, trained from new random weights for the "
            "same number of epochs. Where it reaches what fine-tuning reaches, the architecture "
            "was worth keeping, not the weights."
        ),
        formula="W ~ the initialisation of each layer; E epochs",
        source="Liu et al. 2019, Rethinking the Value of Network Pruning (ICLR)",
        data="training",
        cost="training.epochs epochs of training",
        schema=schema_of(Baseline, ["training"], kind="scratch_e"),
    ),
    Method(
        name="scratch_b",
        kind="baseline",
        summary=(
            "The same, for as many epochs as take the computation of those epochs on the original."
        ),
        formula="W ~ the initialisation of each layer; ceil(E * MACs_before / MACs_after) epochs",
        source="Liu et al. 2019, Rethinking the Value of Network Pruning (ICLR)",
        data="training",
        cost="the computation of training.epochs epochs on the original",
        schema=schema_of(Baseline, ["training"], kind="scratch_b"),
    ),
]
