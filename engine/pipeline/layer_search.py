"""The removal of residual branches that brings a model down to a cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.calling import copies
from engine.layers.branches import Branch
from engine.layers.choice import Choice, choose
from engine.layers.removal import remove_branches
from engine.layers.scores import Scores
from engine.pipeline.search import Search
from engine.torchscript.program import Program


@dataclass(frozen=True)
class LayerSearch(Search[Choice]):
    """Every number of branches, the least important ones; really removed, for there are few.

    Attributes:
        branches: that can be removed.
        scores: judges them, given what has gone.
    """

    branches: Sequence[Branch]
    scores: Scores

    def plan(self, amount: int) -> Choice:
        """So many branches, or fewer where those that are left would take more along."""
        return choose(self.branches, amount, self.scores)

    def units(self, plan: Choice) -> tuple[Any, ...]:
        """The names of those that go."""
        return tuple(sorted(branch.name for branch in (*plan.chosen, *plan.inside)))

    def cut(self, plan: Choice) -> Program:
        """The program without them.

        Raises:
            BranchNeeded: one of them cannot go together with the others.
        """
        if not plan.chosen:
            return self.program
        return remove_branches(self.program, plan.chosen, copies(self.inputs)).program


def remembered(scores: Scores) -> Scores:
    """The same scores, worked out once: a search asks for one order of removal again and again."""
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], list[float]] = {}

    def judge(branches: Sequence[Branch], gone: Sequence[Branch]) -> list[float]:
        key = (
            tuple(branch.number for branch in branches),
            tuple(branch.number for branch in gone),
        )
        if key not in known:
            known[key] = scores(branches, gone)
        return known[key]

    return judge
