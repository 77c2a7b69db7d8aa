"""What every contest of criteria is: a program that each of them prunes to the same cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from secateur.recipe import PruneStage

from engine.masks import Masks
from engine.torchscript.program import Program


@dataclass(frozen=True)
class Pruned:
    """A contestant before its recovery.

    Attributes:
        program: pruned; the program it was made from is as it was.
        masks: that hold in it.
        cost: in the contest's unit.
        removed: channels, heads or weights that went.
        amount: those, as a share of all before.
    """

    program: Program
    masks: Masks
    cost: int
    removed: int
    amount: float


class Contest(Protocol):
    """A program that every criterion prunes to one cost."""

    matched_by: Literal["macs", "nonzero_parameters"]
    before: int
    target: int

    def prune(self, stage: PruneStage, seed: int) -> Pruned:
        """The program pruned by the stage's criterion.

        Raises:
            EngineError: why the criterion cannot compete.
        """
