"""Automated gradual pruning: sparsity grows while the network trains (Zhu & Gupta 2017).

From sparsity s_i to s_f in n steps of dt from t0 on, at t = t0 + k dt with k = 0 .. n:

    s_t = s_f + (s_i - s_f) (1 - (t - t0) / (n dt))^3

Fast at first, while the network is redundant, and slow at the end. Masked weights get no gradient
and stay masked: every mask holds the ones before it. How much each growth takes is
`engine.selection.schedule`'s to say; this module says when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from secateur.recipe import Agp
from torch import Tensor

from engine.errors import TrainingRuleUnmet
from engine.torchscript.program import Program
from engine.training.sparsity import Change, Moment, SparsityRule

Grow = Callable[[Program, Mapping[str, Tensor], int], Mapping[str, Tensor]]
"""Masks of a round (0 is the first) from the program and the masks of the round before."""


@dataclass(frozen=True)
class Ramp:
    """When masks grow in a run.

    Attributes:
        schedule: of the recipe.
        field: path of the schedule in the recipe, for errors.
    """

    schedule: Agp
    field: str

    def check(self, per_epoch: int, steps: int) -> None:
        """The last growth must leave at least a step to recover.

        Raises:
            TrainingRuleUnmet: saying what would fit.
        """
        last = self._step_of(self.schedule.rounds, per_epoch)
        if last >= steps:
            raise TrainingRuleUnmet(
                f"the ramp ends at step {last}, and the run ends at step {steps} "
                f"({per_epoch} steps an epoch)",
                hint="train for more epochs, or lower `rounds`, `every_steps` or `start_epoch`",
                where=f"{self.field}.rounds",
            )

    def due(self, moment: Moment) -> int | None:
        """The growth that falls on this step, if any; 0 is the start of the ramp."""
        for round_number in range(self.schedule.rounds + 1):
            if moment.step == self._step_of(round_number, moment.per_epoch):
                return None if round_number == 0 and self.schedule.initial == 0 else round_number
        return None

    def settled(self, step: int, per_epoch: int) -> bool:
        """After the last growth."""
        return step > self._step_of(self.schedule.rounds, per_epoch)

    def _step_of(self, round_number: int, per_epoch: int) -> int:
        every = self.schedule.every_steps or per_epoch
        return self.schedule.start_epoch * per_epoch + round_number * every


@dataclass(frozen=True)
class GradualPruning(SparsityRule):
    """Growths of one run.

    Attributes:
        ramp: when they are.
        grow: gives the masks of each growth.
    """

    ramp: Ramp
    grow: Grow

    def check(self, per_epoch: int, steps: int) -> None:
        """The last growth must leave at least a step to recover."""
        self.ramp.check(per_epoch, steps)

    def change(
        self,
        program: Program,
        optimizer: torch.optim.Optimizer,
        masks: Mapping[str, Tensor],
        moment: Moment,
    ) -> Change | None:
        """Larger masks where a growth is due; the step itself is then taken under them."""
        del optimizer  # what it remembers of masked weights never comes back
        round_number = self.ramp.due(moment)
        if round_number is None:
            return None
        return Change(self.grow(program, masks, round_number), instead_of_step=False)

    def settled(self, step: int, per_epoch: int) -> bool:
        """After the last growth."""
        return self.ramp.settled(step, per_epoch)
