"""Searches for the removal that brings a model down to a cost, whatever is removed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from secateur.recipe_target import Cost
from secateur.report import Frozen

from engine.costs.exact import cost_of
from engine.costs.reach import reach
from engine.errors import TargetUnreachable
from engine.pipeline.frozen_hint import frozen_hint
from engine.torchscript.program import Program

P = TypeVar("P")


@dataclass(frozen=True)
class Search(ABC, Generic[P]):
    """What can be removed in a round, in the order in which it would go.

    Attributes:
        program: as it is before the round.
        inputs: the example.
        most: the largest amount.
        frozen: what cannot be removed.
        stays: what else remains of the model at the largest amount, in words.
    """

    program: Program
    inputs: Sequence[Any]
    most: int
    frozen: Sequence[Frozen]
    stays: str

    @abstractmethod
    def plan(self, amount: int) -> P:
        """The removal of an amount from 0 (nothing) to `most`."""

    def aligned(self, amount: int) -> P | None:  # noqa: ARG002  for those that have widths
        """The same of fewer units, in widths that kernels like; None where there is no such."""
        return None

    @abstractmethod
    def units(self, plan: P) -> tuple[Any, ...]:
        """What a plan takes, told apart by what matters to its cost; empty for nothing."""

    @abstractmethod
    def cut(self, plan: P) -> Program:
        """The program without what the plan removes."""

    def estimate(
        self,
        of: Cost,  # noqa: ARG002  for those that know shapes
        folder: Path,  # noqa: ARG002  the same
    ) -> Callable[[int], float] | None:
        """The cost of an amount without cutting, where shapes tell it."""
        return None


class Aim(Protocol):
    """A cost that a removal is to reach.

    Attributes:
        whole_stage: whether it is that of the whole stage, whose rounds then share out what is
            found, or of one round.
    """

    @property
    def whole_stage(self) -> bool:
        """See above."""

    def find(self, search: Search[P]) -> P:
        """The least removal that reaches it.

        Raises:
            TargetUnreachable: none does; names the lowest cost and what stands in the way.
        """


@dataclass(frozen=True)
class CountedAim:
    """Parameters, multiply-accumulates or bytes.

    Attributes:
        of: which of them.
        limit: what the round may leave.
        folder: for files that are measured.
        whole_stage: see `Aim`.
    """

    of: Cost
    limit: float
    folder: Path
    whole_stage: bool = False

    def find(self, search: Search[P]) -> P:
        """By shapes where they tell, checked on the model that is cut."""

        def exact(amount: int) -> float:
            program = search.cut(search.plan(amount))
            return cost_of(self.of, program, search.inputs, self.folder)

        estimate = search.estimate(self.of, self.folder)
        amount = reach(estimate, exact, search.most, self.limit)
        if amount is None:
            raise unreachable(self.of, exact(search.most), self.limit, search)
        return search.plan(amount)


def unreachable(
    of: Cost, least: float, limit: float, search: Search[Any], *, then: str = ""
) -> TargetUnreachable:
    """What to say where no removal reaches a limit.

    Args:
        of: the cost.
        least: the lowest there is.
        limit: what was asked for.
        search: that found nothing.
        then: more to say of the lowest.
    """
    return TargetUnreachable(
        f"the target cannot be reached: the model can be brought down to {amount_of(of, least)} "
        f"and no further, and {amount_of(of, limit)} is asked for{then}",
        hint=f"ask for {amount_of(of, least)} or more; {search.stays}"
        + (f"; {frozen_hint(search.frozen)}" if search.frozen else ""),
        where="allocation.target",
    )


def amount_of(of: Cost, number: float) -> str:
    """A cost in words."""
    if of == "latency_ms":
        return f"{number:.4g} ms"
    unit = {"params": "parameters", "macs": "MACs", "bytes": "bytes"}[of]
    return f"{number:,.0f} {unit}"
