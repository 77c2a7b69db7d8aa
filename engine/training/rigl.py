"""RigL: sparse from start to end, with connections that move (Evci et al. 2020, algorithm 1).

Every dt steps until T_end, a layer with m live weights exchanges k of them, where

    f(t) = (a / 2) (1 + cos(t pi / T_end)),   k = floor(f(t) m)

    drop   the k live weights of smallest magnitude
    grow   the k weights of largest loss gradient among all that are not live after the drop

so the count per layer never changes. What was just dropped is among the candidates: where its
gradient is large it comes back in the same exchange, from zero, as everything that grows starts at
zero (the authors' code leaves such a weight its value; the paper knows no exception). The
optimiser makes no step at an exchange, and forgets what it gathered for dropped and grown weights.
A layer without a dead weight is dense, not sparse, and is left alone: nothing can move there.
Gradients of dead weights come for free: they are held at zero, not taken out of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, floor, pi

import torch
from secateur.recipe import Rigl
from torch import Tensor

from engine.errors import TrainingRuleUnmet
from engine.torchscript.program import Program
from engine.training.optimizer import forget
from engine.training.sparsity import Change, Moment, SparsityRule


@dataclass(frozen=True)
class RiggedLottery(SparsityRule):
    """Exchanges of one run.

    Attributes:
        schedule: of the recipe.
        weights: names of the weights that take part.
        field: path of the schedule in the recipe, for errors.
    """

    schedule: Rigl
    weights: frozenset[str]
    field: str

    def check(self, per_epoch: int, steps: int) -> None:
        """At least one exchange must fall into the run."""
        end = self.schedule.stop * steps
        if self.schedule.every_steps >= end:
            raise TrainingRuleUnmet(
                f"no exchange falls into the run: the first is at step "
                f"{self.schedule.every_steps}, and exchanges end at step {end:g} of {steps} "
                f"({per_epoch} steps an epoch)",
                hint="lower `every_steps`, or train for more epochs",
                where=f"{self.field}.every_steps",
            )

    def change(
        self,
        program: Program,
        optimizer: torch.optim.Optimizer,
        masks: Mapping[str, Tensor],
        moment: Moment,
    ) -> Change | None:
        """Exchanged masks where an exchange is due; the optimiser then makes no step."""
        end = self.schedule.stop * moment.steps
        if moment.step == 0 or moment.step % self.schedule.every_steps or moment.step >= end:
            return None
        share = self.drop_share(moment.step, end)
        changed = dict(masks)
        for name, weight in program.parameters().items():
            # Frozen layers have no gradient and do not move.
            if name in masks and name in self.weights and weight.grad is not None:
                done = exchange(weight, weight.grad, masks[name], share)
                changed[name] = done.mask
                start_at_zero(weight, done.moved)
                forget(optimizer, weight, done.moved)
        return Change(changed, instead_of_step=True)

    def settled(self, step: int, per_epoch: int) -> bool:
        """Always: the count never changes."""
        del step, per_epoch
        return True

    def drop_share(self, step: int, end: float) -> float:
        """f(t), the share of live weights that is exchanged at step t."""
        return self.schedule.alpha / 2 * (1 + cos(step * pi / end))


@dataclass(frozen=True)
class Exchange:
    """What an exchange did to a weight.

    Attributes:
        mask: that holds from now on.
        moved: dropped or grown, or one after the other.
    """

    mask: Tensor
    moved: Tensor


@torch.no_grad()
def exchange(weight: Tensor, gradient: Tensor, mask: Tensor, share: float) -> Exchange:
    """Drop and grow, with as many live weights as before.

    Ties go to the earlier element, for drops and growths alike.

    Args:
        weight: of any shape, zero where it is dead.
        gradient: of the loss, dense.
        mask: True where the weight lives.
        share: of the live weights that is exchanged.
    """
    live = mask.reshape(-1)
    count = 0 if bool(live.all()) else floor(share * int(live.sum()))
    magnitude = weight.reshape(-1).abs().masked_fill(~live, torch.inf)
    kept = live.clone()
    kept[torch.argsort(magnitude, stable=True)[:count]] = False
    strength = gradient.reshape(-1).abs().masked_fill(kept, -torch.inf)
    grown = torch.zeros_like(live)
    grown[torch.argsort(strength, descending=True, stable=True)[:count]] = True
    moved = (live & ~kept) | grown
    return Exchange((kept | grown).reshape(mask.shape), moved.reshape(mask.shape))


def start_at_zero(weight: Tensor, where: Tensor) -> None:
    """Zero the weights in place."""
    with torch.no_grad():
        weight.masked_fill_(where, 0.0)
