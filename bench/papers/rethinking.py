"""Liu et al. 2019: is the pruned architecture as good when it is trained from new weights?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import nn

from bench.papers.claim import Claim, Column, Finding, no_worse, top1
from bench.papers.jobs import Outcome, Scale, run_recipe, train_dense, training
from bench.papers.networks import LENET_5, LENET_300_100, Network
from bench.papers.records import Record

DENSE_EPOCHS = 30
FINETUNE_EPOCHS = 20
_CASES: dict[str, tuple[Network, str, float]] = {
    "channels_50": (LENET_5, "channel", 0.5),
    "weights_80": (LENET_300_100, "element", 0.8),
    "weights_95": (LENET_300_100, "element", 0.95),
}
_SPREAD: dict[str, dict[str, Any]] = {
    "channel": {},
    "element": {"distribution": "erdos_renyi"},
}
_WORDS = {
    "channels_50": "LeNet-5 without half of its channels",
    "weights_80": "LeNet-300-100 without 80 % of its weights",
    "weights_95": "LeNet-300-100 without 95 % of its weights",
}
_HOW = {
    "finetune": "fine-tuned",
    "scratch_e": "from scratch, as many epochs",
    "scratch_b": "from scratch, as much computation",
    "random": "control: random choice, fine-tuned",
}


@lru_cache(maxsize=4)
def _dense(network: Network, seed: int, scale: Scale) -> nn.Module:
    return train_dense(network, seed, scale, epochs=DENSE_EPOCHS, weight_decay=1e-2)


@lru_cache(maxsize=4)
def _job(case: str, criterion: str, seed: int, scale: Scale) -> Outcome:
    network, granularity, amount = _CASES[case]
    stage = {
        "stage": "prune",
        "granularity": granularity,
        "criterion": criterion,
        "allocation": {"amount": amount} | _SPREAD[granularity],
    }
    decayed = {"kind": "adamw", "lr": 1e-3, "weight_decay": 1e-2}
    finetune = {"stage": "finetune"} | training(scale, FINETUNE_EPOCHS, optimizer=decayed)
    recipe: dict[str, Any] = {"stages": [stage, finetune]}
    if criterion != "random":
        as_dense = {"optimizer": decayed | {"lr": 2e-3}}
        # Masked networks run all their computation: there the paper takes twice the epochs.
        longer = 2 * DENSE_EPOCHS if granularity == "element" else DENSE_EPOCHS
        recipe["baselines"] = [
            {"kind": "scratch_e", "training": training(scale, DENSE_EPOCHS, **as_dense)},
            {"kind": "scratch_b", "training": training(scale, longer, **as_dense)},
        ]
    return run_recipe(network, _dense(network, seed, scale), recipe, seed=seed, scale=scale)


def _run(variant: str, seed: int, scale: Scale) -> dict[str, float]:
    case, how = variant.split("/")
    report = _job(case, "random" if how == "random" else "l1_norm", seed, scale).report
    controls = {item.kind: item for item in report.baselines}
    control = controls.get(how)
    after = report.after
    return {
        "dense": top1(report.before),
        "accuracy": top1(control or after),
        "epochs": control.epochs if control else FINETUNE_EPOCHS,
        "ratio": after.parameters / after.nonzero_parameters
        if case.startswith("weights")
        else report.before.parameters / after.parameters,
        "macs": after.macs / report.before.macs,
    }


def _judge(records: Sequence[Record]) -> list[Finding]:
    return [
        no_worse(
            records, f"{case}/{how}", f"{case}/finetune",
            f"{words}: {_HOW[how]} is no worse than fine-tuned",
        )
        for case, words in _WORDS.items()
        for how in ("scratch_e", "scratch_b")
    ]  # fmt: skip


CLAIM = Claim(
    name="rethinking",
    title="Rethinking the value of pruning",
    source="Liu et al. 2019, Rethinking the Value of Network Pruning (ICLR), sections 4 and 5",
    statement="""\
Pruned architectures trained from new random weights do as well as fine-tuned ones, structured or
not, when they train with the computation that the dense network took (`scratch_b`), and often when
they train as many epochs (`scratch_e`).""",
    setting=f"""\
Dense networks are trained for {DENSE_EPOCHS} epochs, pruned at once by L1 norm and fine-tuned for
{FINETUNE_EPOCHS} epochs at half the rate: every layer loses the same share of its channels, or the
share of its weights that `erdos_renyi` gives. The controls are the job's own `baselines`, trained
as the dense networks were: `scratch_e` as long, `scratch_b` with as many multiply-accumulates; for
single weights, where masks save none, twice as long.""",
    variants={
        f"{case}/{how}": f"{words}, {text}"
        for case, words in _WORDS.items()
        for how, text in _HOW.items()
    },
    columns={
        "dense": Column("dense"),
        "accuracy": Column("result"),
        "epochs": Column("epochs", "number"),
        "ratio": Column("fewer parameters", "ratio"),
        "macs": Column("MACs left, %"),
    },
    run=_run,
    judge=_judge,
    remark="""\
The paper too sees `scratch_e` fall short in places. Here half of the channels and a fifth of the
weights want longer than the 30 epochs that the dense network converges in.""",
)
