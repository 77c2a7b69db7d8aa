"""When it goes."""

from __future__ import annotations

from secateur.methods.schema import schema_of
from secateur.recipe import Iterative, OneShot
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
]
