r"""When training has run away, and what is kept then.

A run has diverged when a loss is NaN or infinite, when a weight is after an epoch, or when the mean
loss L_e of two epochs in a row is above

    10 max(L_1, 1)

with L_1 that of the first epoch. The 1 is for networks that begin with almost no loss: a rise from
0.01 to 0.2 is what a high learning rate costs for a while. Ten is far above what a network that
guesses loses: cross-entropy of a uniform guess among K classes is ln K. Epochs in which masks still
grow do not count: taking weights away raises the loss, and that is no fault of the steps.

A run that diverged ends. Its result is the best epoch where the validation split chooses, otherwise
the last epoch before the loss ran away; both only where `engine.training.validation.may_be_kept`
lets them be a result at all. Where there is none the run fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.errors import TrainingDiverged
from engine.training.run import TrainingRun

TIMES = 10.0
EPOCHS = 2


@dataclass
class LossWatch:
    """Follows the mean training losses of a run.

    Attributes:
        first: of the first epoch.
        above: epochs in a row whose loss was above the limit.
    """

    first: float | None = None
    above: int = 0

    def see(self, loss: float, run: TrainingRun, epoch: int, *, settled: bool) -> None:
        """Take in the mean loss of an epoch (from 0).

        Args:
            loss: finite.
            run: the loss is of.
            epoch: from 0.
            settled: whether masks are as sparse as they shall be.

        Raises:
            TrainingDiverged: it was far too high for too long.
        """
        if self.first is None:
            self.first = loss
        limit = TIMES * max(self.first, 1.0)
        self.above = self.above + 1 if settled and loss > limit else 0
        if self.above >= EPOCHS:
            raise diverged(
                f"the loss was {loss:.4g} in epoch {epoch + 1} of {run.options.epochs}, and above "
                f"{limit:.4g} for {EPOCHS} epochs; it began with {self.first:.4g}",
                run,
            )

    def memory(self) -> dict[str, Any]:
        """What a resumed run must be told."""
        return {"first": self.first, "above": self.above}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.first, self.above = memory["first"], memory["above"]


def check_weights(weights: Mapping[str, Tensor], run: TrainingRun, epoch: int) -> None:
    """Refuse to go on from trained weights that are no numbers, after an epoch (from 0).

    Raises:
        TrainingDiverged: naming the first of them.
    """
    for name, weight in weights.items():
        if weight.requires_grad and not bool(torch.isfinite(weight).all()):
            raise diverged(
                f"`{name}` is no longer finite after epoch {epoch + 1} of {run.options.epochs}", run
            )


def diverged(title: str, run: TrainingRun) -> TrainingDiverged:
    """The error of a run that ran away."""
    return TrainingDiverged(
        title,
        hint=f"lower the learning rate (it is {run.options.optimizer.lr}), and check the dataset "
        "for NaN",
        where=f"{run.field}.optimizer.lr",
    )
