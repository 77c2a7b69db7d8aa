"""Frankle & Carbin 2019: a trained network holds a small one that trains as well, by its luck."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from bench.papers.claim import Claim, Column, Finding, above, no_worse_than_dense, points, top1
from bench.papers.jobs import Outcome, Scale, run_recipe, training
from bench.papers.networks import LENET_300_100
from bench.papers.records import Record
from bench.papers.statistics import difference, figure_by_seed

EPOCHS = 60
ROUNDS = 8
LEFT = (5,)
"""Percent of the weights."""
_WORDS = {
    "ticket": "ticket",
    "reinitialised": "control: its mask, new initial weights",
    "random": "control: a random mask, the initial weights",
}


@lru_cache(maxsize=4)
def _job(criterion: str, rounds: int, left: int, seed: int, scale: Scale) -> Outcome:
    options = training(scale, EPOCHS)
    stage: dict[str, Any] = {
        "stage": "prune",
        "granularity": "element",
        "criterion": criterion,
        "allocation": {"amount": 1 - left / 100, "distribution": "erdos_renyi"},
        "schedule": {"kind": "imp", "rounds": rounds, "training": options},
    }
    recipe: dict[str, Any] = {"stages": [stage]}
    if criterion != "random":
        recipe["baselines"] = [{"kind": "scratch_e", "training": options}]
    upload = LENET_300_100.initial(seed)
    return run_recipe(LENET_300_100, upload, recipe, seed=seed, scale=scale)


def _run(variant: str, seed: int, scale: Scale) -> dict[str, float]:
    how, left = variant.split("/")
    if how == "random":
        outcome = _job("random", 1, int(left), seed, scale)
    else:
        outcome = _job("large_final", ROUNDS, int(left), seed, scale)
    report = outcome.report
    rounds = report.tickets[0].rounds
    result = report.baselines[0] if how == "reinitialised" else report.after
    return {
        "accuracy": top1(result),
        "dense": top1(rounds[0]),
        "left": rounds[-1].share_left,
        "weights": rounds[-1].weights_left,
    }


def _judge(records: Sequence[Record]) -> list[Finding]:
    found = []
    for left in LEFT:
        ticket = f"ticket/{left}"
        found += [
            no_worse_than_dense(
                records, ticket, f"{left} % of the weights: the ticket is no worse than dense"
            ),
            _below_dense(records, f"reinitialised/{left}", left),
            above(
                records,
                ticket,
                f"reinitialised/{left}",
                f"{left} %: the ticket is above its mask with new initial weights",
            ),
            above(records, ticket, f"random/{left}", f"{left} %: the ticket is above random masks"),
        ]
    return found


def _below_dense(records: Sequence[Record], variant: str, left: int) -> Finding:
    dense, after = (figure_by_seed(records, variant, name) for name in ("dense", "accuracy"))
    found = difference(dense, after)
    return Finding(
        f"{left} %: dense is above the ticket's mask with new initial weights",
        found.above,
        points(found),
    )


CLAIM = Claim(
    name="lottery",
    title="The lottery ticket hypothesis",
    source="Frankle & Carbin 2019, The Lottery Ticket Hypothesis (ICLR), section 2",
    statement="""\
Iterative magnitude pruning finds masks of a few percent of the weights that match the accuracy of
the whole network when trained from its own initial weights, and do not when trained from new
ones.""",
    setting=f"""\
LeNet-300-100, an untrained upload, `schedule: imp` of {ROUNDS} rounds, {EPOCHS} epochs of AdamW
(0.002, cosine) each, densities by layer from `erdos_renyi`. The control with new weights is the
job's own `scratch_e` under the ticket's masks, with the same training; random masks have the
ticket's densities. The paper removes the same share of every layer in each round, and trains on
60,000 images.""",
    variants={
        f"{how}/{left}": f"{left} % of the weights, {words}"
        for left in LEFT
        for how, words in _WORDS.items()
    },
    columns={
        "dense": Column("dense"),
        "accuracy": Column("result"),
        "left": Column("weights left, %"),
    },
    run=_run,
    judge=_judge,
)
