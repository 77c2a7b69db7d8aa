"""The plans among which a search for a cost chooses, and the round that carries one out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from secateur.recipe import Allocation, PruneStage
from secateur.recipe_target import Cost
from secateur.report import Frozen

from engine.calling import copies
from engine.compaction import compact
from engine.costs.amounts import Amounts, amounts_of
from engine.costs.exact import cost_of
from engine.costs.macs import MacsBySelection
from engine.costs.sizes import BytesBySelection, ParametersBySelection
from engine.pipeline.search import Search
from engine.scores.groups import group_keys
from engine.selection.channels import ChannelPlan, Target, select_channels
from engine.selection.spread import Spread
from engine.torchscript.program import Program

VECTOR = 8
"""Channels that the wider plan of a time is rounded up to a multiple of."""


@dataclass(frozen=True)
class ChannelSearch(Search[ChannelPlan]):
    """Every amount of a stage's allocation; each plan holds the one before.

    Attributes:
        spread: of an amount over the groups.
        scores: one per component, NaN for those that must stay.
        amounts: of the allocation.
        round_to: of the recipe.
    """

    spread: Spread
    scores: NDArray[np.float64]
    amounts: Amounts
    round_to: int | None

    def plan(self, amount: int) -> ChannelPlan:
        """The lowest scores, in the recipe's widths."""
        return self._rounded(amount, self.round_to)

    def aligned(self, amount: int) -> ChannelPlan | None:
        """In multiples of `VECTOR`; None where the recipe rounds itself."""
        return None if self.round_to is not None else self._rounded(amount, VECTOR)

    def _rounded(self, amount: int, round_to: int | None) -> ChannelPlan:
        coupling = self.spread.coupling
        if amount == 0:
            nothing = dict.fromkeys(group_keys(coupling.groups), 0)
            return ChannelPlan(np.empty(0, np.int64), nothing)
        allocation = self.amounts.at(amount)
        totals = self.spread.totals(allocation, self.scores)
        target = Target(allocation, self.spread.originals, totals=totals)
        return select_channels(coupling, self.scores, target, round_to=round_to)

    def units(self, plan: ChannelPlan) -> tuple[Any, ...]:
        """Channels of every group that loses some; which ones matters to no cost."""
        return tuple((key, count) for key, count in plan.by_group.items() if count)

    def cut(self, plan: ChannelPlan) -> Program:
        """The compacted program.

        Raises:
            CompactionConflict: the graph cannot express the removal.
        """
        if plan.removed.size == 0:
            return self.program
        return compact(self.program, self.spread.coupling, plan.removed, copies(self.inputs))

    def estimate(self, of: Cost, folder: Path) -> Callable[[int], float] | None:
        """From the shapes of what survives."""
        program, coupling = self.program, self.spread.coupling
        if of == "params":
            parameters = ParametersBySelection(coupling, program)
            return lambda amount: parameters.after(self.plan(amount).removed)
        present = cost_of(of, program, self.inputs, folder)
        if of == "bytes":
            size = BytesBySelection(coupling, program, present)
            return lambda amount: size.after(self.plan(amount).removed)
        macs = MacsBySelection(coupling, present)
        return (lambda amount: macs.after(self.plan(amount).removed)) if macs.known else None


@dataclass(frozen=True)
class ChannelPlans:
    """The rounds of a stage that aims at a cost.

    Attributes:
        program: before the round.
        stage: of the recipe.
        inputs: the example.
        spread: of an amount over the groups.
    """

    program: Program
    stage: PruneStage
    inputs: Sequence[Any]
    spread: Spread

    def search(self, scores: NDArray[np.float64], frozen: Sequence[Frozen]) -> ChannelSearch:
        """What a search runs through.

        Args:
            scores: one per component, NaN for those that must stay.
            frozen: those, for people.
        """
        sizes = list(self.spread.originals.by_group.values())
        amounts = amounts_of(self.stage.allocation, sizes)
        round_to = self.stage.round_to
        stays = "the last channel of every layer stays"
        if round_to is not None:
            stays += f", and what `round_to: {round_to}` takes back"
        return ChannelSearch(
            self.program,
            self.inputs,
            amounts.most,
            frozen,
            stays,
            spread=self.spread,
            scores=scores,
            amounts=amounts,
            round_to=round_to,
        )

    def totals(self, plan: ChannelPlan) -> dict[str, int]:
        """Channels that every group has lost of the whole stage once the plan is carried out."""
        groups = self.spread.coupling.groups
        present = {
            key: len(group.components)
            for key, group in zip(group_keys(groups), groups, strict=True)
        }
        return {
            # A group of one channel is no longer listed, and its channel is there.
            key: size - present.get(key, 1) + plan.by_group.get(key, 0)
            for key, size in self.spread.originals.by_group.items()
        }

    def target(self, totals: Mapping[str, int], place: tuple[int, int]) -> Target:
        """The round that takes those totals, or its part of them.

        Args:
            totals: channels each group is to lose.
            place: the round and all rounds; (1, 1) takes them at once.
        """
        by_totals = Allocation(amount=0.5)  # group by group; the amount is not read
        return Target(by_totals, self.spread.originals, *place, totals, self.stage.schedule)
