"""Channels or heads, pruned by one criterion after another to the same MACs.

What the criteria share is made once: the coupling graph and the MACs of every removal on it. A
criterion then scores once, and the amount at which it meets the cost is found by bisection over its
selection. Channels are really cut, so that MACs and parameters are those of the model that is
compared, and its recovery costs what the smaller model costs. Nothing of a contestant outlives it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from secateur.recipe import Allocation, PruneStage

from engine.calling import copies
from engine.compaction import compact
from engine.compaction.conflict import CompactionConflict
from engine.costs.amounts import STEPS, amounts_of
from engine.costs.macs import MacsBySelection
from engine.costs.matching import Cost, matching_amount
from engine.coupling import couple
from engine.errors import CriterionDoesNotFit, NothingPruned
from engine.masks import Masks
from engine.measure.macs import count_macs
from engine.pipeline.contest import Pruned
from engine.pipeline.frozen_hint import frozen_hint
from engine.pipeline.prune import PlannedChannels, compact_masks
from engine.pipeline.scoring import evidence_for
from engine.pipeline.setup import Workbench
from engine.scores import component_scores, criterion, unscored
from engine.selection.channels import ChannelPlan, Originals, Target, select_channels
from engine.selection.units import channel_totals
from engine.torchscript.program import Program

_MOST_CONFLICTS = 32
"""How often a criterion is tried anew because a removal cannot be expressed in the graph."""


class ChannelContest:
    """Channels or heads, at equal MACs."""

    matched_by: Literal["macs", "nonzero_parameters"] = "macs"

    def __init__(
        self, bench: Workbench, program: Program, masks: Masks, stage: PruneStage, field: str
    ) -> None:
        self._bench, self._program, self._masks, self._field = bench, program, masks, field
        self._tolerance = 0.0 if stage.contest is None else stage.contest.tolerance
        self._coupling = couple(
            program,
            copies(bench.inputs),
            exclude=stage.exclude,
            granularity="head" if stage.granularity == "head" else "channel",
        )
        self._tensors = self._coupling.methods.join(program).tensors()
        self._originals = Originals.of(self._coupling.groups)
        self.before = count_macs(program, bench.inputs)
        if self.before == 0 or self._originals.total == 0:
            raise NothingPruned(
                "a tournament needs MACs to compare at and channels to remove; the model has "
                f"{self.before} MACs and {self._originals.total} channels that can be removed",
                hint=frozen_hint(self._coupling.frozen),
                where="criterion",
            )
        self._costs = MacsBySelection(self._coupling, self.before)
        self.target = self._target(stage)

    def _target(self, stage: PruneStage) -> int:
        share, field = self._share(stage)
        if share is not None:
            self._check_reachable(stage, share, field)
            return round(share * self.before)
        # Every layer loses the same share, which no criterion has a say in.
        allocation = stage.allocation
        if allocation.scope == "global":
            total = self._originals.total
            amount = allocation.amount or min((allocation.count or 1) / total, 1 - 1 / STEPS)
            allocation = Allocation(amount=amount)
        scores = np.zeros(self._coupling.component_count)
        removed = self._plan(stage, scores, allocation).removed
        if removed.size == 0:
            raise NothingPruned(
                "the tournament has no cost to compare at: the amount rounds to no channel in "
                "every layer",
                hint="raise the amount, or say what share of the MACs contestants keep in "
                "`tournament.macs`",
                where="allocation",
            )
        try:
            return self._cut(removed)[1]
        except CompactionConflict:
            return round(self._costs.after(removed))

    def _share(self, stage: PruneStage) -> tuple[float | None, str]:
        """The share of the MACs that the recipe names, and where; None where it names none."""
        aim = stage.allocation.target
        if aim is None or aim.of != "macs":
            return None if stage.contest is None else stage.contest.macs, "tournament.macs"
        share = aim.share if aim.at_most is None else aim.at_most / self.before
        if share is not None and share >= 1:
            raise NothingPruned(
                f"the plan removes nothing: the model has {self.before:,} MACs as it is, and the "
                f"target is {aim.at_most:,.0f}",
                hint="ask for less, or for a `share` of the present cost",
                where="allocation.target",
            )
        return share, "allocation.target"

    def _check_reachable(self, stage: PruneStage, share: float, field: str) -> None:
        """What no criterion can reach is the recipe's fault and not theirs."""
        most, allocation_at = self._amounts(stage.allocation)
        whatever = np.zeros(self._coupling.component_count)
        least = self._costs.after(self._plan(stage, whatever, allocation_at(most)).removed)
        if self._costs.known and least > (1 + self._tolerance) * share * self.before:
            raise CriterionDoesNotFit(
                f"`{field}: {share:g}` cannot be reached: with all gone that can be "
                f"removed, the model keeps {least / self.before:.3g} of its MACs",
                hint=f"raise `{field}` above that, or leave it out; "
                + frozen_hint(self._coupling.frozen),
                where=field,
            )

    def prune(self, stage: PruneStage, seed: int) -> Pruned:
        """Score once, find the amount, cut."""
        judge = criterion(stage.criterion)
        scores = component_scores(
            self._coupling,
            self._tensors,
            judge,
            aggregate=stage.aggregate,
            slices=stage.slices,
            normalize=stage.normalize,
            seed=seed,
            program=self._program,
            evidence=evidence_for(self._bench, stage, seed, self._field),
        )
        unscored(self._coupling, scores, judge)
        for _ in range(_MOST_CONFLICTS):
            try:
                return self._matched(stage, scores)
            except CompactionConflict as conflict:
                free = conflict.components[~np.isnan(scores[conflict.components])]
                if free.size == 0:
                    raise
                scores[free] = np.nan
        raise NothingPruned(
            f"{_MOST_CONFLICTS} plans in a row could not be expressed in the program's graph",
            hint=frozen_hint(self._coupling.frozen),
            where="criterion",
        )

    def _matched(self, stage: PruneStage, scores: NDArray[np.float64]) -> Pruned:
        most, allocation_at = self._amounts(stage.allocation)

        def plan(amount: int) -> ChannelPlan:
            return self._plan(stage, scores, allocation_at(amount))

        last: dict[int, tuple[Program, int]] = {}

        def exact(amount: int) -> float:
            last.clear()  # one at a time
            last[amount] = self._cut(plan(amount).removed)
            return last[amount][1]

        amount = self._search(lambda amount: self._costs.after(plan(amount).removed), exact, most)
        chosen = plan(amount)
        program, cost = last.get(amount) or self._cut(chosen.removed)
        planned = PlannedChannels(
            self._coupling, chosen, self._originals, program, list(self._coupling.frozen)
        )
        return Pruned(
            program,
            compact_masks(self._masks, self._program, planned, self._bench.inputs),
            cost,
            int(chosen.removed.size),
            chosen.removed.size / self._originals.total,
        )

    def _search(self, estimate: Cost, exact: Cost, most: int) -> int:
        """By shapes alone where those tell the truth, else on models that are really cut."""
        close = self._tolerance * self.target / 2
        known: dict[int, float] = {}

        def cost(amount: int) -> float:
            if amount not in known:
                known[amount] = exact(amount)
            return known[amount]

        if self._costs.known:
            try:
                amount = matching_amount(estimate, most, self.target, self._tolerance)
                if abs(cost(amount) - estimate(amount)) <= close:
                    return amount
            except CriterionDoesNotFit:
                pass  # if the estimate is right, the first model cut below says so again
        return matching_amount(cost, most, self.target, self._tolerance)

    def _amounts(self, allocation: Allocation) -> tuple[int, Callable[[int], Allocation]]:
        """How many amounts there are, and the allocation of each from 1."""
        amounts = amounts_of(allocation, list(self._originals.by_group.values()))
        return amounts.most, amounts.at

    def _plan(
        self, stage: PruneStage, scores: NDArray[np.float64], allocation: Allocation
    ) -> ChannelPlan:
        totals = (
            channel_totals(allocation, self._coupling, self._tensors, scores)
            if allocation.by_layer
            else None
        )
        target = Target(allocation, self._originals, totals=totals)
        return select_channels(self._coupling, scores, target, round_to=stage.round_to)

    def _cut(self, removed: NDArray[np.int64]) -> tuple[Program, int]:
        if removed.size == 0:
            return self._program, self.before
        smaller = compact(self._program, self._coupling, removed, copies(self._bench.inputs))
        return smaller, count_macs(smaller, self._bench.inputs)
