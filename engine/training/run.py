"""One training run: what it is given, who hears of it, what it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from secateur.recipe import FinetuneOptions
from torch import Tensor

from engine.data.splits import Split
from engine.torchscript.program import Program
from engine.training.sparsity import SparsityRule
from engine.training.state import TrainingState


class TrainingObserver(Protocol):
    """Hears how training goes."""

    def progress(self, current: int, total: int, unit: str) -> None:
        """Steps done, of all."""

    def metric(self, name: str, value: float, step: int) -> None:
        """A value after an epoch; `step` counts epochs from 1."""

    def epoch_finished(self, state: TrainingState) -> None:
        """An epoch is complete; the run can resume from `state`."""


@dataclass(frozen=True)
class TrainingRun:
    """One fine-tuning run.

    Attributes:
        options: of the recipe.
        train: split with targets.
        validation: split with targets to choose the best epoch on, or None.
        masks: element masks to hold.
        seed: of the recipe.
        purpose: names this run among the runs of a job, for its seeds.
        field: path of the recipe field, for errors.
        device: where the program lies.
        example_batch: samples in the example inputs.
        dropout: probabilities other than the program's (see `engine.training.dropout`).
        sparsity: how the masks change while training, or None where they hold.
        first_epoch: epochs of the schedule that are left out at its start.
    """

    options: FinetuneOptions
    train: Split
    validation: Split | None
    masks: Mapping[str, Tensor]
    seed: int
    purpose: str
    field: str
    device: str = "cpu"
    example_batch: int = 1
    dropout: Mapping[int, float] = dataclasses.field(default_factory=dict)
    sparsity: SparsityRule | None = None
    first_epoch: int = 0


@dataclass(frozen=True)
class Trained:
    """What a run gave.

    Attributes:
        program: in evaluation mode.
        masks: that hold in it, on the CPU.
    """

    program: Program
    masks: dict[str, Tensor]
