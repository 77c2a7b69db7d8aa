"""Single weights, masked by one criterion after another until equally many are left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from secateur.recipe import Allocation, PruneStage
from torch import Tensor

from engine.costs.amounts import STEPS
from engine.costs.matching import is_matched, matching_amount
from engine.errors import NothingPruned
from engine.masks import Masks, maskable, masked_count, prune_elements
from engine.pipeline.contest import Pruned
from engine.pipeline.scoring import judge_elements
from engine.pipeline.setup import Workbench
from engine.torchscript.program import Program


class ElementContest:
    """Single weights, at equally many that are not masked."""

    matched_by: Literal["macs", "nonzero_parameters"] = "nonzero_parameters"

    def __init__(
        self, bench: Workbench, program: Program, masks: Masks, stage: PruneStage, field: str
    ) -> None:
        self._bench, self._program, self._masks, self._field = bench, program, masks, field
        self._tolerance = 0.0 if stage.contest is None else stage.contest.tolerance
        self._weights = {
            name: weight.numel() for name, weight in maskable(program, stage.exclude).items()
        }
        self.before = self._left(masks)
        # How many go depends on sizes alone, so that any criterion tells.
        plain = stage.model_copy(update={"criterion": "random"})
        self.target = self._left(prune_elements(program.twin(), masks, plain, seed=0)[0])
        if self.target == self.before:
            raise NothingPruned(
                "the tournament has no cost to compare at: the amount rounds to no weight, or "
                "those weights are masked already",
                hint="raise the amount; amounts count against all weights, masked ones included",
                where="allocation",
            )

    def _left(self, masks: Masks) -> int:
        own: dict[str, Tensor] = {name: masks[name] for name in masks if name in self._weights}
        return sum(self._weights.values()) - masked_count(own)

    def prune(self, stage: PruneStage, seed: int) -> Pruned:
        """Mask the stage's amount; more of what can be judged where some weights cannot."""
        judged = judge_elements(self._bench, self._program, stage, seed, self._field)

        def masked(allocation: Allocation) -> tuple[Program, Masks, int]:
            program = self._program.twin()
            masks, removed = prune_elements(
                program,
                self._masks,
                stage.model_copy(update={"allocation": allocation}),
                seed=seed,
                saliency=judged.saliency,
            )
            return program, masks, removed

        program, masks, removed = masked(stage.allocation)
        if not is_matched(self._left(masks), self.target, self._tolerance):
            most, at = self._amounts(stage.allocation)
            amount = matching_amount(
                lambda number: self._left(masked(at(number))[1]),
                most,
                self.target,
                self._tolerance,
            )
            program, masks, removed = masked(at(amount))
        return Pruned(program, masks, self._left(masks), removed, removed / self.before)

    def _amounts(self, allocation: Allocation) -> tuple[int, Callable[[int], Allocation]]:
        if allocation.count is not None:
            most = (
                sum(self._weights.values())
                if allocation.scope == "global"
                else max(self._weights.values())
            )
            return most - 1, lambda number: allocation.model_copy(update={"count": number})
        return STEPS - 1, lambda number: allocation.model_copy(update={"amount": number / STEPS})
