r"""Movement: which weights training drives towards zero (Sanh et al. 2020).

Give every weight w a score S and let the network compute with w' = w [S is among the highest]. The
selection has no gradient; passed straight through, the chain rule gives dL/dS = (dL/dw') w, and
gradient descent on S accumulates, over steps t and up to a positive factor,

    S = - sum_t w_t g_t,    g_t = dL/dw' at step t

(Sanh, Wolf & Rush 2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", NeurIPS, equation 3).
Descent moves w by -lr g, so S is positive where w moves away from zero, and negative where it
moves towards it; the lowest go, however large they are. g is the gradient of the loss alone,
without penalty and decay.

A masked weight has no part in the output and is not trained, but g is there: it is the gradient
of what the weight multiplies. With the value that the weight had when it was masked its score goes
on, and it may come back. `MovementPruning` therefore keeps those values; where masks hold for
good (`MovementRecord`), a masked weight is zero and its score stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.torchscript.program import Program
from engine.training.gradual import Ramp
from engine.training.optimizer import forget
from engine.training.sparsity import Change, Moment, SparsityRule

Scores = dict[str, Tensor]
"""By parameter name, of the parameter's shape, in float64."""
Regrow = Callable[[Program, int, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""All masks of a round (0 is the first) from the program with every weight, the round and the
scores; the weights that go are zeroed."""


@torch.no_grad()
def add_movement(scores: Scores, name: str, weight: Tensor, gradient: Tensor) -> None:
    """Add -w g to the score of a weight."""
    moved = weight.detach().double() * gradient.detach().double()
    known = scores.get(name)
    scores[name] = -moved if known is None else known.sub_(moved)


@dataclass
class MovementRecord(SparsityRule):
    """Follows the movement of all weights while masks hold.

    Attributes:
        scores: so far, on the device.
    """

    scores: Scores = field(default_factory=dict)

    def check(self, per_epoch: int, steps: int) -> None:
        """Every run has steps to follow."""

    def change(
        self,
        program: Program,
        optimizer: torch.optim.Optimizer,
        masks: Mapping[str, Tensor],
        moment: Moment,
    ) -> Change | None:
        """None: it only looks."""
        del optimizer, masks, moment
        for name, weight in program.parameters().items():
            if weight.grad is not None:
                add_movement(self.scores, name, weight, weight.grad)
        return None

    def settled(self, step: int, per_epoch: int) -> bool:
        """Always: nothing changes."""
        del step, per_epoch
        return True

    def memory(self) -> dict[str, Scores]:
        """The scores."""
        return {"scores": _kept(self.scores)}

    def recall(self, memory: Mapping[str, Mapping[str, Tensor]], device: str) -> None:
        """Go on from those scores."""
        self.scores = _placed(memory.get("scores", {}), device)


@dataclass
class MovementPruning(SparsityRule):
    """A ramp of masks by movement; at every growth all weights of the stage compete anew.

    Attributes:
        ramp: when the masks grow.
        regrow: chooses them.
        weights: names of the weights that take part.
        scores: so far, on the device.
        held: the weights as they were at the last growth, which are those of masked ones still.
    """

    ramp: Ramp
    regrow: Regrow
    weights: Collection[str]
    scores: Scores = field(default_factory=dict)
    held: dict[str, Tensor] = field(default_factory=dict)

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
        """Masks by the scores where a growth is due; the step itself is then taken under them."""
        taking_part = {
            name: weight for name, weight in program.parameters().items() if name in self.weights
        }
        whole = {name: self._whole(name, weight, masks) for name, weight in taking_part.items()}
        for name, weight in taking_part.items():
            if weight.grad is not None:
                add_movement(self.scores, name, whole[name], weight.grad)
        round_number = self.ramp.due(moment)
        if round_number is None:
            return None
        for name, weight in taking_part.items():
            with torch.no_grad():
                weight.copy_(whole[name])
        self.held = {name: value.clone() for name, value in whole.items()}
        changed = self.regrow(program, round_number, self.scores)
        for name, weight in taking_part.items():
            if name in changed:
                now = changed[name].to(weight.device)
                before = masks.get(name, torch.ones_like(now))
                # What comes back starts without the momentum it had when it went.
                forget(optimizer, weight, now ^ before)
        return Change(changed, instead_of_step=False)

    def settled(self, step: int, per_epoch: int) -> bool:
        """After the last growth."""
        return self.ramp.settled(step, per_epoch)

    def memory(self) -> dict[str, dict[str, Tensor]]:
        """The scores, and the values of masked weights."""
        return {"scores": _kept(self.scores), "held": _kept(self.held)}

    def recall(self, memory: Mapping[str, Mapping[str, Tensor]], device: str) -> None:
        """Go on from there."""
        self.scores = _placed(memory.get("scores", {}), device)
        self.held = _placed(memory.get("held", {}), device)

    def _whole(self, name: str, weight: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """The weight with the values that masked elements had."""
        if name not in self.held or name not in masks:
            return weight.detach()
        return torch.where(masks[name], weight.detach(), self.held[name])


def _kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _placed(tensors: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    return {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}
