"""Averaged weights: the result is an exponential moving average of the steps, not the last one.

With w_i the weights after step i of those averaged (from 1), decay d and t steps so far:

    a_t = sum_i (1 - d) d^(t - i) w_i / (1 - d^t)

so a_t = a_(t-1) + r_t (w_t - a_(t-1)),  r_t = (1 - d) / (1 - d^t),  r_1 = 1.

Averages of late iterates have less of the gradients' noise (Polyak & Juditsky 1992, "Acceleration
of Stochastic Approximation by Averaging", SIAM J. Control Optim. 30; with decay, Tarvainen &
Valpola 2017, "Mean teachers", NeurIPS). The division by 1 - d^t (Kingma & Ba 2015, section 3, for
moments) leaves the weights before the first step out: over a run much shorter than 1 / (1 - d)
steps it is the plain mean of its steps, not the pruned weights almost unchanged.

BatchNorm's running statistics are averaged the same way: those of any one step are of other
weights. A masked weight is zero in every term: what a growing mask takes is zero in the average at
once, and what comes back begins at the value it comes back with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from secateur.recipe import WeightAveraging
from torch import Tensor

from engine.errors import TrainingRuleUnmet
from engine.masks import apply_masks
from engine.torchscript.program import Program


@dataclass
class WeightAverage:
    """The average over the steps of a run.

    Attributes:
        options: of the recipe.
        weights: that are averaged, as they are now (see `averaged_tensors`).
        steps: that are in it.
        tensors: the average by name, on the device; in float32 at least, for the steps of half
            types are coarser than what a step adds.
        masks: that held at the last of its steps.
    """

    options: WeightAveraging
    weights: Mapping[str, Tensor]
    steps: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def add(self, masks: Mapping[str, Tensor]) -> None:
        """Take in the weights after a step.

        Args:
            masks: that hold, on the device; replaced and never changed in place.
        """
        self.steps += 1
        if self.steps == 1:
            self.tensors = {name: _precise(weight) for name, weight in self.weights.items()}
            self.masks = masks
            return
        if masks is not self.masks:
            self._follow(masks)
        rate = (1 - self.options.decay) / (1 - self.options.decay**self.steps)
        for name, held in self.tensors.items():
            # Of two equal numbers exactly that number: constants and masked zeros keep their bits.
            held.lerp_(self.weights[name].to(held.dtype), rate)

    def memory(self) -> dict[str, Any]:
        """What a resumed run must be told, on the CPU."""
        tensors = {name: held.cpu().clone() for name, held in self.tensors.items()}
        return {"steps": self.steps, "tensors": tensors}

    def recall(self, memory: Mapping[str, Any], masks: Mapping[str, Tensor], device: str) -> None:
        """Go on from there, under the masks that held."""
        self.steps, self.masks = memory["steps"], masks
        self.tensors = {
            name: held.to(device, copy=True) for name, held in memory["tensors"].items()
        }

    def _follow(self, masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            before = self.masks.get(name)
            if before is not None and name in self.tensors:
                held = self.tensors[name]
                now = self.weights[name].to(held.dtype)
                held.copy_(torch.where(mask & ~before, now, held))
        apply_masks(self.tensors, {name: masks[name] for name in masks if name in self.tensors})
        self.masks = masks


def averaged_tensors(program: Program, frozen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point parameters and buffers that training moves, shared ones once."""
    found = program.parameters()
    held = {id(tensor) for tensor in found.values()}
    for name, tensor in program.attributes().items():
        if tensor.is_floating_point() and id(tensor) not in held:
            held.add(id(tensor))
            found[name] = tensor
    return {name: tensor for name, tensor in found.items() if name not in frozen}


def averaging_of(
    options: WeightAveraging | None, weights: Mapping[str, Tensor], *, end: int, field: str
) -> WeightAverage | None:
    """A new average, or None where the recipe asks for none.

    Args:
        options: of the recipe.
        weights: to average.
        end: epochs of the schedule that are over when the run ends.
        field: path of the training in the recipe.

    Raises:
        TrainingRuleUnmet: the run ends before averaging begins.
    """
    if options is None:
        return None
    if options.from_epoch >= end:
        raise TrainingRuleUnmet(
            f"averaging begins after {options.from_epoch} epochs, and the run ends within {end}",
            hint="lower `ema.from_epoch`, or train for longer",
            where=f"{field}.ema.from_epoch",
        )
    return WeightAverage(options, weights)


def _precise(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)
