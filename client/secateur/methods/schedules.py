"""When it goes."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import Agp, Iterative, LrRewind, OneShot, Rigl
from secateur.resources import Method

SCHEDULES: list[Method] = [
    Method(
        name="one_shot",
        kind="schedule",
        summary="Prune once to the full amount.",
        formula="kept = 1 - amount",
        source="Li et al. 2017, section 3.4 (prune once and retrain)",
        data="none",
        cost="one analysis and one removal",
        schema=schema_of(OneShot),
    ),
    Method(
        name="iterative",
        kind="schedule",
        summary=(
            "Prune a little, fine-tune, and again, until the amount is reached; every round takes "
            "the same share of what is left. Without `finetune` it needs no data."
        ),
        formula="after round r of R: kept = (1 - amount)^(r / R)",
        source="Han et al. 2015; even share per round: Frankle & Carbin 2019, The Lottery Ticket "
        "Hypothesis (ICLR)",
        data="training",
        cost="R analyses and removals, and R * finetune.epochs epochs of training",
        schema=schema_of(Iterative),
    ),
    Method(
        name="agp",
        kind="schedule",
        summary=(
            "Automated gradual pruning: much goes at first, little at the end. Single weights are "
            "masked while one run trains; channels, heads and layers go in rounds with a run each. "
            "Of an n:m pattern every group loses equally many, and the groups whose next weight "
            "matters least are one ahead. Criteria that run the model judge anew at every growth."
        ),
        formula="s_k = s_f + (s_i - s_f) (1 - k / n)^3 after growth k of n",
        source="Zhu & Gupta 2017, To prune, or not to prune (arXiv:1710.01878), equation 1",
        data="training",
        cost="finetune.epochs epochs of training for weights, n times that otherwise; and n times "
        "the criterion's",
        schema=schema_of(Agp),
    ),
    Method(
        name="lr_rewind",
        kind="schedule",
        summary=(
            "Prune, keep the weights, and replay the learning-rate schedule of the training that "
            "made the model; again each round. The optimiser starts afresh each time. From epoch 0 "
            "this is `iterative` with that training as its fine-tuning."
        ),
        formula="p = 1 - (1 - amount)^(1 / R) of what remains goes in each of R rounds; then "
        "lr(t) for t = t_rewind .. T",
        source="Renda, Frankle & Carbin 2020, Comparing Rewinding and Fine-tuning in Neural "
        "Network Pruning (ICLR)",
        data="training",
        cost="R analyses and removals, and R * (finetune.epochs - rewind_to_epoch) epochs",
        schema=schema_of(LrRewind),
    ),
    Method(
        name="rigl",
        kind="schedule",
        summary=(
            "Dynamic sparse training: single weights are masked at once; while training, the "
            "smallest go and those with the largest gradients come, as many in each layer. What "
            "was just dropped may come back at once; all that comes starts at zero. `allocation` "
            "says how sparse each layer is: local is the paper's uniform, and "
            "`distribution: erdos_renyi` its ERK."
        ),
        formula="k = floor(m alpha / 2 (1 + cos(pi t / T_end))) of a layer's m live weights, every "
        "every_steps steps until T_end = stop * T",
        source="Evci et al. 2020, Rigging the Lottery: Making All Tickets Winners (ICML), "
        "algorithm 1",
        data="training",
        cost="finetune.epochs epochs of training; sorting each weight every every_steps steps",
        schema=schema_of(Rigl),
    ),
]
