"""FPGM, APoZ, DropNet and Taylor: which half of the computation can a network do without?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import nn

from bench.papers.claim import (
    Claim,
    Column,
    Finding,
    above,
    no_worse,
    no_worse_than_dense,
    top1,
)
from bench.papers.jobs import Outcome, Scale, run_recipe, train_dense, training
from bench.papers.records import Record
from bench.papers.small_networks import SMALL_RESNET

DENSE_EPOCHS = 15
FINETUNE_EPOCHS = 4
AMOUNT = 0.3
"""Of the channels of every layer: the MACs that are left are the same for every criterion."""
_PAPERS = {
    "geometric_median": "FPGM",
    "apoz": "APoZ",
    "mean_activation": "DropNet",
    "taylor": "Taylor",
}


@lru_cache(maxsize=4)
def _dense(seed: int, scale: Scale) -> nn.Module:
    return train_dense(SMALL_RESNET, seed, scale, epochs=DENSE_EPOCHS)


@lru_cache(maxsize=4)
def _job(criterion: str, seed: int, scale: Scale) -> Outcome:
    prune = {"stage": "prune", "criterion": criterion, "allocation": {"amount": AMOUNT}}
    finetune = {"stage": "finetune"} | training(scale, FINETUNE_EPOCHS)
    recipe: dict[str, Any] = {"stages": [prune, finetune]}
    if criterion == "random":  # every criterion leaves the same architecture
        anew = training(scale, DENSE_EPOCHS + FINETUNE_EPOCHS)
        recipe["baselines"] = [{"kind": "scratch_e", "training": anew}]
    return run_recipe(SMALL_RESNET, _dense(seed, scale), recipe, seed=seed, scale=scale)


def _run(variant: str, seed: int, scale: Scale) -> dict[str, float]:
    report = _job("random" if variant == "scratch" else variant, seed, scale).report
    result = report.baselines[0] if variant == "scratch" else report.after
    figures = {
        "dense": top1(report.before),
        "accuracy": top1(result),
        "macs": 1 - (report.after.macs or 0) / (report.before.macs or 1),
    }
    if variant != "scratch":
        figures["pruned"] = top1(report.stages[0])
    return figures


def _judge(records: Sequence[Record]) -> list[Finding]:
    found = []
    for criterion, paper in _PAPERS.items():
        found += [
            no_worse_than_dense(records, criterion, f"{paper}: no worse than the dense network"),
            above(records, criterion, "random",
                  f"{paper}: before fine-tuning above random channels", "pruned"),
            above(records, criterion, "random",
                  f"{paper}: after fine-tuning above random channels"),
            no_worse(records, criterion, "scratch", f"{paper}: no worse than from scratch"),
        ]  # fmt: skip
    return found


CLAIM = Claim(
    name="channel_criteria",
    title="Half of the computation by four criteria",
    source="He et al. 2019 (FPGM, CVPR); Hu et al. 2016 (Network Trimming, arXiv:1607.03250); Tan "
    "& Motani 2020 (DropNet, ICML); Molchanov et al. 2019 (Importance Estimation, CVPR)",
    statement="""\
Each of the papers removes about half of the computation of a residual network or of a VGG with
little or no loss of accuracy, and does better than random channels: FPGM those that others can
stand in for, APoZ those that are mostly zero, DropNet those of small mean activation, Taylor those
whose removal changes the loss least.""",
    setting=f"""\
A small ResNet of three blocks is trained for {DENSE_EPOCHS} epochs, loses {AMOUNT:.0%} of the
channels of every layer at once (residual sums together), and is fine-tuned for {FINETUNE_EPOCHS}
epochs. As every layer loses as many, all variants are left with the same architecture. Controls:
random channels, and that architecture from new weights for as many epochs in all.""",
    variants={
        **{criterion: f"{paper} (`{criterion}`)" for criterion, paper in _PAPERS.items()},
        "random": "control: random channels",
        "scratch": "control: from scratch",
    },
    columns={
        "dense": Column("dense"),
        "pruned": Column("before fine-tuning"),
        "accuracy": Column("result"),
        "macs": Column("fewer MACs, %"),
    },
    run=_run,
    judge=_judge,
    remark="""\
All come back to the dense network within a point, and so do random channels: after fine-tuning this
network and these data tell no criterion from chance. Before it Taylor alone is above chance.""",
)
