"""Which branches go: the least important one, again and again.

A branch takes those inside it along, and they count: one that would take more than are to go waits.
Ties go to the branch that runs first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from engine.layers.branches import Branch
from engine.layers.scores import Scores


@dataclass(frozen=True)
class Choice:
    """What goes.

    Attributes:
        chosen: branches in the order of their removal, with the score that each had then.
        inside: branches that go with them.
        first: score of every branch while all others are there.
        fatal: branches without which the program fails or gives no finite numbers.
    """

    chosen: dict[Branch, float]
    inside: list[Branch]
    first: dict[Branch, float]
    fatal: list[Branch]

    @property
    def removed(self) -> int:
        """How many go in all."""
        return len(self.chosen) + len(self.inside)


def choose(branches: Sequence[Branch], count: int, scores: Scores) -> Choice:
    """Choose `count` branches, or as many as can go."""
    first = dict(zip(branches, scores(branches, []), strict=True))
    chosen: dict[Branch, float] = {}
    gone: set[int] = set()
    known = first
    fatal = [branch for branch in branches if not isfinite(first[branch])]
    while True:
        candidates = [
            branch
            for branch in branches
            if branch.number not in gone
            and branch not in fatal
            and 1 + len(branch.inside - gone) <= count - len(gone)
        ]
        if not candidates:
            break
        if chosen:
            known = dict(zip(candidates, scores(candidates, list(chosen)), strict=True))
        best = min(candidates, key=lambda branch: known[branch])
        if not isfinite(known[best]):
            break
        chosen[best] = known[best]
        gone |= {best.number, *best.inside}
    inner = frozenset[int]().union(*(branch.inside for branch in chosen))
    outer = {branch: score for branch, score in chosen.items() if branch.number not in inner}
    inside = [branch for branch in branches if branch.number in gone and branch not in outer]
    return Choice(outer, inside, first, fatal)
