"""Lottery tickets and what they are compared with."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import Baseline, Imp, ImpRewind, PruneStage, Supermask
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
    Method(
        name="supermask",
        kind="schedule",
        summary=(
            "Mask the untrained weights and train none of them. The mask comes from a trained copy "
            "(criterion large_final_same_sign in the paper) or is learned by gradient; kept "
            "weights may take other magnitudes and signs, removed ones other values than zero."
        ),
        formula=(
            "W = m . W_0;  learned: m ~ Bernoulli(sigmoid(v)), dL/dv = dL/dW . W_0 . "
            "sigmoid(v) (1 - sigmoid(v))"
        ),
        source=(
            "Zhou et al. 2019, Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask "
            "(NeurIPS)"
        ),
        data="training",
        cost="training.epochs epochs of training, and two copies of the weights",
        schema=schema_of(Supermask),
    ),
]


def _mask_criterion(name: str, summary: str, formula: str) -> Method:
    return Method(
        name=name,
        kind="criterion",
        summary=summary,
        formula=formula,
        source=(
            "Zhou et al. 2019, Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask "
            "(NeurIPS)"
        ),
        data="training",
        cost="one copy of the initial weights, kept by the schedules imp, imp_rewind, supermask",
        schema=schema_of(PruneStage, ["normalize"], criterion=name),
    )


LOTTERY_CRITERIA: list[Method] = [
    _mask_criterion("large_final", "Elements that are large after training stay.", "s = |w_final|"),
    _mask_criterion(
        "small_final",
        "Elements that are small after training stay: a control.",
        "s = -|w_final|",
    ),
    _mask_criterion("large_init", "Elements that were large before training stay.", "s = |w_init|"),
    _mask_criterion(
        "small_init",
        "Elements that were small before training stay: a control.",
        "s = -|w_init|",
    ),
    _mask_criterion(
        "large_init_large_final",
        "Elements that were large and still are stay.",
        "s = min(|w_final|, |w_init|)",
    ),
    _mask_criterion(
        "small_init_small_final",
        "Elements that were small and still are stay: a control.",
        "s = -max(|w_final|, |w_init|)",
    ),
    _mask_criterion(
        "magnitude_increase",
        "Elements that grew the most in training stay.",
        "s = |w_final| - |w_init|",
    ),
    _mask_criterion(
        "init_movement",
        "Elements that moved the farthest in training stay.",
        "s = |w_final - w_init|",
    ),
    _mask_criterion(
        "large_final_same_sign",
        "Elements that are large after training and kept their sign stay; for supermasks.",
        "s = max(0, w_init w_final / |w_init|)",
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
    Method(
        name="random_pruning",
        kind="baseline",
        summary=(
            "The upload without as many units of every layer as the result has lost, drawn by lot "
            "at once, and the recipe's training. What the criterion is better by than this is what "
            "it is worth."
        ),
        formula="R(l) drawn evenly from the subsets of |R_result(l)| units, for every layer l",
        source="Mittal et al. 2018, Recovering from Random Pruning (WACV)",
        data="training",
        cost="training.epochs epochs of training",
        schema=schema_of(Baseline, ["training"], kind="random_pruning"),
    ),
]
