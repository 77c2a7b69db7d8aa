"""Liu et al. 2017: an L1 penalty on the scales of BatchNorm tells which channels may go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from bench.papers.claim import (
    Claim,
    Column,
    Finding,
    above,
    no_worse,
    no_worse_than_dense,
    top1,
)
from bench.papers.jobs import Outcome, Scale, accuracy, run_recipe, train_dense, training
from bench.papers.records import Record
from bench.papers.small_networks import SMALL_VGG
from bench.papers.statistics import figure_by_seed

DENSE_EPOCHS = 12
FINETUNE_EPOCHS = 8
PENALTY = 2e-3
AMOUNT = 0.6
"""Of all channels, in one ranking."""
FEWER_PARAMETERS, FEWER_MACS = 0.80, 0.50


@lru_cache(maxsize=4)
def _job(criterion: str, penalty: float, seed: int, scale: Scale) -> Outcome:
    """Trains the untrained upload, with the penalty or without, prunes and fine-tunes."""
    learning = {"kind": "sgd", "lr": 0.05, "weight_decay": 1e-4}
    sparse = {"penalty": {"bn_scale": penalty}} if penalty else {}
    first = training(scale, DENSE_EPOCHS, optimizer=learning, **sparse)
    prune: dict[str, Any] = {
        "stage": "prune",
        "criterion": criterion,
        "allocation": {"scope": "global", "amount": AMOUNT},
    }
    again = training(scale, FINETUNE_EPOCHS, optimizer=learning | {"lr": 0.02})
    recipe: dict[str, Any] = {
        "stages": [{"stage": "finetune"} | first, prune, {"stage": "finetune"} | again]
    }
    if criterion == "bn_scale" and penalty:
        anew = training(scale, DENSE_EPOCHS + FINETUNE_EPOCHS, optimizer=learning)
        recipe["baselines"] = [{"kind": "scratch_e", "training": anew}]
    return run_recipe(SMALL_VGG, SMALL_VGG.initial(seed), recipe, seed=seed, scale=scale)


_JOBS = {
    "slimmed": ("bn_scale", PENALTY),
    "scratch": ("bn_scale", PENALTY),
    "no_penalty": ("bn_scale", 0.0),
    "random": ("random", PENALTY),
}


@lru_cache(maxsize=4)
def _dense(seed: int, scale: Scale) -> float:
    """Trained without the penalty for as long as training and fine-tuning take."""
    epochs = DENSE_EPOCHS + FINETUNE_EPOCHS
    return accuracy(train_dense(SMALL_VGG, seed, scale, epochs=epochs), SMALL_VGG, scale)


def _run(variant: str, seed: int, scale: Scale) -> dict[str, float]:
    report = _job(*_JOBS[variant], seed, scale).report
    before, after = report.before, report.after
    result = report.baselines[0] if variant == "scratch" else after
    figures = {
        "dense": _dense(seed, scale),
        "accuracy": top1(result),
        "parameters": 1 - after.parameters / before.parameters,
        "macs": 1 - (after.macs or 0) / (before.macs or 1),
    }
    if variant != "scratch":
        figures["pruned"] = top1(report.stages[1])
    return figures


def _judge(records: Sequence[Record]) -> list[Finding]:
    return [
        _at_least(records, "parameters", FEWER_PARAMETERS, "at least 80 % fewer parameters"),
        _at_least(records, "macs", FEWER_MACS, "at least 50 % fewer MACs"),
        no_worse_than_dense(records, "slimmed", "no worse than the dense network"),
        above(records, "slimmed", "random", "which channels go matters: above random channels"),
        above(records, "slimmed", "no_penalty",
              "the penalty matters: before fine-tuning above the same without it", "pruned"),
        no_worse(records, "slimmed", "scratch", "no worse than the same network from scratch"),
    ]  # fmt: skip


def _at_least(records: Sequence[Record], figure: str, bound: float, statement: str) -> Finding:
    values = figure_by_seed(records, "slimmed", figure).values()
    return Finding(
        statement, min(values) >= bound, f"{100 * min(values):.1f} % with the seed that has least"
    )


CLAIM = Claim(
    name="slimming",
    title="Network Slimming",
    source="Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming "
    "(ICCV), section 4",
    statement="""\
An L1 penalty on the scales of BatchNorm while training lets most of them go to nearly nothing;
channels with small scales, in one ranking over the network, can go. VGG on CIFAR-10 loses 88.5 % of
its parameters and 51 % of its computation and is no less accurate.""",
    setting=f"""\
A small VGG of four convolutions is trained for {DENSE_EPOCHS} epochs of SGD with the penalty
({PENALTY:g}), loses {AMOUNT:.0%} of its channels by `bn_scale` with `scope: global`, and is
fine-tuned for {FINETUNE_EPOCHS} epochs without it. Controls: the same without the penalty; random
channels, as many in all (so other parameters and MACs are left); the slimmed architecture from new
weights for as many epochs in all. The dense network trains as long in all, without the penalty.""",
    variants={
        "slimmed": "trained with the penalty, by `bn_scale`",
        "no_penalty": "trained without it, by `bn_scale`",
        "random": "control: random channels",
        "scratch": "control: the slimmed network from scratch",
    },
    columns={
        "dense": Column("dense"),
        "pruned": Column("before fine-tuning"),
        "accuracy": Column("result"),
        "parameters": Column("fewer parameters, %"),
        "macs": Column("fewer MACs, %"),
    },
    run=_run,
    judge=_judge,
    remark="""\
Digits are easy: even random channels and new weights come back to within a point of the dense
network, which leaves the penalty nothing to show after fine-tuning. Before it, seeds differ too
much to tell the slimmed network from one that was trained without the penalty.""",
)
