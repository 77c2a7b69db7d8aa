"""Zhou et al. 2019: masks alone make untrained weights classify."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.papers.claim import Claim, Column, Finding, above, points, top1
from bench.papers.jobs import Scale, run_recipe, training
from bench.papers.networks import LENET_300_100
from bench.papers.records import Record
from bench.papers.statistics import difference, figure_by_seed

EPOCHS = 30
MASK_EPOCHS = 100
AMOUNT = 0.5
CHANCE = 0.1
FAR = 0.3
"""Above chance, as a fraction: three times chance more."""

_SCHEDULES: dict[str, dict[str, Any]] = {
    "same_sign": {"values": "init"},
    "constant": {"values": "constant"},
    "learned": {"mask": "learned", "values": "init"},
    "learned_rescaled": {"mask": "learned", "values": "init", "rescale": True},
    "random": {"values": "init"},
}
_WORDS = {
    "same_sign": "large final weights of the same sign",
    "constant": "the same mask, kept weights at one magnitude",
    "learned": "learned mask",
    "learned_rescaled": "learned mask, weights rescaled",
    "random": "control: random mask",
}


def _run(variant: str, seed: int, scale: Scale) -> dict[str, float]:
    schedule = _SCHEDULES[variant]
    if schedule.get("mask") == "learned":
        options = training(
            scale, MASK_EPOCHS, optimizer={"kind": "adamw", "lr": 0.1, "weight_decay": 0.0}
        )
    else:
        options = training(scale, EPOCHS)
    stage = {
        "stage": "prune",
        "granularity": "element",
        "criterion": "random" if variant == "random" else "large_final_same_sign",
        "allocation": {"amount": AMOUNT},
        "schedule": {"kind": "supermask", "training": options} | schedule,
    }
    upload = LENET_300_100.initial(seed)
    outcome = run_recipe(LENET_300_100, upload, {"stages": [stage]}, seed=seed, scale=scale)
    rounds = outcome.report.tickets[0].rounds
    figures = {
        "untrained": top1(outcome.report.before),
        "accuracy": top1(outcome.report.after),
        "left": rounds[-1].share_left,
    }
    if len(rounds) > 1:
        figures["trained"] = top1(rounds[0])
    return figures


def _judge(records: Sequence[Record]) -> list[Finding]:
    found = [_far_above_chance(records, name) for name in _WORDS if name != "random"]
    found.append(
        above(
            records, "learned_rescaled", "same_sign", "Learned masks are above those by magnitude"
        )
    )
    return found


def _far_above_chance(records: Sequence[Record], variant: str) -> Finding:
    values = figure_by_seed(records, variant, "accuracy")
    found = difference(values, dict.fromkeys(values, CHANCE))
    control = difference(values, figure_by_seed(records, "random", "accuracy"))
    return Finding(
        f"{_WORDS[variant].capitalize()}: {100 * FAR:.0f} points above chance, above random masks",
        found.lowest > FAR and control.above,
        f"chance: {points(found)}; random masks: {points(control)}",
    )


CLAIM = Claim(
    name="supermask",
    title="Supermasks",
    source="Zhou et al. 2019, Deconstructing Lottery Tickets (NeurIPS), sections 4 and 5",
    statement="""\
A mask over untrained weights classifies far above chance; masks learned by gradient do so better
than those that keep large final weights of unchanged sign.""",
    setting=f"""\
LeNet-300-100, an untrained upload, `schedule: supermask`, {100 * (1 - AMOUNT):.0f} % of the weights
of every layer kept; no weight and no bias is trained. The trained copy takes {EPOCHS} epochs of
AdamW at 0.002, learned masks {MASK_EPOCHS} at 0.1. *Far above chance* is at least
{100 * (CHANCE + FAR):.0f} % with 95 % confidence.""",
    variants=_WORDS,
    columns={
        "untrained": Column("untrained, whole"),
        "accuracy": Column("masked, untrained"),
        "trained": Column("trained copy, whole"),
        "left": Column("weights left, %"),
    },
    run=_run,
    judge=_judge,
    remark="""\
Masks of one kind differ by several points from one initial network to the next, more than the best
learned ones differ from those by magnitude. Without rescaling a learned mask is far worse.""",
)
