"""Ways to recover a pruned network, as stages of a recipe.

All prune alike, by the default criterion (`l1_norm`, half of the channels of every layer). A
task's own training is the measure: AdamW, cosine to zero, the last epoch kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.recovery.task import Task

PRUNE: Mapping[str, Any] = {"stage": "prune", "allocation": {"scope": "local", "amount": 0.5}}
MIXED = 0.9
"""Share of the teacher beside labels: the recipe's default."""
EMA = 0.95
"""Decay of averages of weights: about the last twenty steps. Recoveries here take some hundred."""


@dataclass(frozen=True)
class Variant:
    """A recovery.

    Attributes:
        name: key in the records.
        words: as the page has it.
        trains: False leaves the network as it was pruned.
        teacher: `mixed` with labels, or `alone`, where the file holds no labels to train on.
        temperature: of the teacher's and the student's scores; None for the recipe's default.
        length: epochs, as a share of the task's.
        rate: learning rate, times the task's.
        ema: whether weights are averaged.
        fraction: the job is given only the first n-th of the train part, and trains n times as
            many epochs, which are as many steps.
    """

    name: str
    words: str
    trains: bool = True
    teacher: Literal["none", "mixed", "alone"] = "none"
    temperature: float | None = None
    length: float = 1.0
    rate: float = 1.0
    ema: bool = False
    fraction: int = 1

    def epochs(self, task: Task) -> int:
        """That it trains for."""
        if not self.trains:
            return 0
        return max(1, round(task.recovery.epochs * self.length * self.fraction))

    def stages(self, task: Task) -> list[dict[str, Any]]:
        """Of the recipe."""
        if not self.trains:
            return [dict(PRUNE)]
        lr = task.recovery.lr * self.rate
        training: dict[str, Any] = {
            "stage": "finetune",
            "epochs": self.epochs(task),
            "batch_size": task.recovery.batch,
            "optimizer": {"kind": "adamw", "lr": lr, "weight_decay": 0.0},
            "keep": "last",
        }
        if self.ema:
            training["ema"] = {"decay": EMA}
        if self.teacher != "none":
            alpha = 1.0 if self.teacher == "alone" else MIXED
            training["distillation"] = dict(task.distillation) | {"alpha": alpha}
            if self.temperature is not None:
                training["distillation"]["temperature"] = self.temperature
        return [dict(PRUNE), training]


MAIN = (
    Variant("pruned", "pruned, no recovery", trains=False),
    Variant("labels", "labels"),
    Variant("mixed", "labels and teacher", teacher="mixed"),
    Variant("teacher", "teacher alone, no labels", teacher="alone"),
)
"""Tried on every task."""

# `tasks.FURTHER` says on which tasks these are tried.
STUDY = (
    Variant("labels_short", "labels, a quarter of the epochs", length=0.25),
    Variant("mixed_short", "labels and teacher, a quarter of the epochs", teacher="mixed",
            length=0.25),
    Variant("labels_slow", "labels, a tenth of the learning rate", rate=0.1),
    Variant("labels_ema", "labels, averaged weights", ema=True),
    Variant("labels_few", "labels, a tenth of the samples", fraction=10),
    Variant("mixed_few", "labels and teacher, a tenth of the samples", teacher="mixed",
            fraction=10),
)  # fmt: skip

LONG = Variant("labels_long", "labels, three times the epochs", length=3.0)

COOL = Variant("mixed_cool", "labels and teacher, temperature 1", teacher="mixed", temperature=1.0)
