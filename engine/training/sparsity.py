"""What a rule that changes masks while training is asked, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.torchscript.program import Program


@dataclass(frozen=True)
class Moment:
    """A step of a run, from 0.

    Attributes:
        step: this one.
        per_epoch: steps of an epoch.
        steps: of the whole run.
    """

    step: int
    per_epoch: int
    steps: int


@dataclass(frozen=True)
class Change:
    """New masks.

    Attributes:
        masks: all that hold from now on, True where the weight stays.
        instead_of_step: the optimiser makes no step this time.
    """

    masks: Mapping[str, Tensor]
    instead_of_step: bool


class SparsityRule(Protocol):
    """Changes masks while training, or looks on.

    What it must know besides the masks to go on in a resumed run, it says in `memory`.
    """

    def check(self, per_epoch: int, steps: int) -> None:
        """Refuse a run that leaves the rule no room.

        Raises:
            TrainingRuleUnmet: saying what would fit.
        """

    def change(
        self,
        program: Program,
        optimizer: torch.optim.Optimizer,
        masks: Mapping[str, Tensor],
        moment: Moment,
    ) -> Change | None:
        """New masks after this step's gradients, or None to leave them.

        Args:
            program: being trained; gradients of masked weights are still there.
            optimizer: of its parameters.
            masks: on the device.
            moment: when.
        """

    def settled(self, step: int, per_epoch: int) -> bool:
        """Whether the masks are as sparse as they shall be, once `step` steps are done."""

    def memory(self) -> dict[str, dict[str, Tensor]]:
        """What a resumed run must be told, in tensors of its own on the CPU; nothing by default."""
        return {}

    def recall(self, memory: Mapping[str, Mapping[str, Tensor]], device: str) -> None:
        """Start a run: from nothing, or from what `memory` said, on this device."""
        del memory, device
