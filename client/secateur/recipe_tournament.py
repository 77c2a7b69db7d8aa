"""A tournament: which criterion suits the model, decided by trying each at the same cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, get_args

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from secateur.recipe_allocation import Allocation
from secateur.recipe_base import RecipeModel
from secateur.recipe_criterion import (
    GRADIENT_CRITERIA,
    INPUT_CRITERIA,
    Criterion,
    Granularity,
    Scoring,
    SlicesScored,
    granularity_fault,
    slices_fault,
)
from secateur.recipe_lottery import TICKET_CRITERIA, TICKETS
from secateur.recipe_training import FinetuneOptions

TOURNAMENT = "tournament"
StageCriterion = Literal[Criterion, "tournament"]
_OWN_NORMALIZE = "mean"
"""The default of `normalize`, which stands for the default of each criterion here."""
_BY_SCORES = ("threshold", "quality", "layers")


def _form(criteria: Any) -> str:
    return "all" if isinstance(criteria, str) else "list"


Criteria = Annotated[
    Annotated[Literal["all"], Tag("all")]
    | Annotated[list[Criterion], Field(min_length=2, max_length=64), Tag("list")],
    Discriminator(_form),
]
"""Told apart by their form, so that a mistake is told of the form that was meant."""


class Tournament(RecipeModel):
    """Criteria tried on the stage's model, all pruned to the same cost, each followed by a short
    recovery. The one that is best on the validation split judges in the stage."""

    criteria: Criteria = "all"
    """Those that compete; `all` takes every criterion that judges at the stage's granularity. What
    the model or the dataset rules out is listed in the report with the reason."""
    macs: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Channels and heads: MACs that every contestant keeps, as a share of those before the stage.
    Left out, it is what stays when every layer loses the stage's amount, or the stage's own target
    `of: macs`. Single weights are
    compared at equally many zeros instead, for masks leave MACs as they are."""
    tolerance: Annotated[float, Field(gt=0, le=0.5)] = 0.02
    """How far a contestant may be from that, as a share of it. Where single channels are larger
    steps than this, it gets less rather than more."""
    recovery: FinetuneOptions | None = FinetuneOptions()
    """Training of every contestant, one epoch unless said otherwise; null compares them as they are
    after pruning."""
    recovery_steps: Annotated[int, Field(ge=1)] | None = None
    """Ends `recovery` after this many optimiser steps, where that is before its last epoch."""

    @model_validator(mode="after")
    def _contestants_differ(self) -> Self:
        if self.criteria != "all":
            twice = [name for name in self.criteria if self.criteria.count(name) > 1]
            if twice:
                raise ValueError(f"`criteria` names `{twice[0]}` twice")
        if self.recovery is None and self.recovery_steps is not None:
            raise ValueError("`recovery_steps` shortens a recovery, and `recovery` is null")
        return self


def tournament_fault(
    criterion: str,
    tournament: Tournament | None,
    granularity: Granularity,
    allocation: Allocation,
    schedule: str,
) -> str | None:
    """Why a stage cannot hold the tournament it asks for, or None.

    Args:
        criterion, tournament, granularity, allocation: of the stage.
        schedule: the kind of its schedule.
    """
    if criterion != TOURNAMENT:
        return (
            None
            if tournament is None
            else f"`tournament` is of no use to `criterion: {criterion}`; write `criterion: "
            "tournament`, with that one among `tournament.criteria`"
        )
    if granularity in ("layer", "n_m"):
        return (
            "`criterion: tournament` compares criteria of channels, heads and single weights; "
            f"granularity is `{granularity}`. Run a job for each criterion instead"
        )
    if schedule in TICKETS or (schedule == "agp" and granularity == "element"):
        return (
            f"`criterion: tournament` is decided before the stage, and `schedule.kind: {schedule}` "
            "judges weights that have been trained since; use `one_shot`, `iterative`, `lr_rewind` "
            "or `rigl`"
        )
    given = next((name for name in _BY_SCORES if getattr(allocation, name) is not None), None)
    if given is None and allocation.distribution == "sensitivity":
        given = "distribution: sensitivity"
    if given is not None:
        return (
            f"`criterion: tournament` brings every criterion to the same cost by changing the "
            f"amount, and `allocation.{given}` has none that means the same to all; give `amount` "
            "or `count`, with `distribution: erdos_renyi` (or the plain one) at most"
        )
    return _cost_fault(tournament, granularity, allocation)


def _cost_fault(
    tournament: Tournament | None, granularity: Granularity, allocation: Allocation
) -> str | None:
    """Why contestants cannot be brought to the cost that the stage names, or None."""
    macs = None if tournament is None else tournament.macs
    target = None if allocation.target is None else allocation.target.of
    if granularity == "element":
        return (
            None
            if macs is None
            else "`tournament.macs`: masks of single weights leave MACs as they are; leave it out, "
            "and `allocation` says how many weights every contestant loses"
        )
    if target == "macs" and macs is not None:
        return (
            "`allocation.target` says how many MACs stay, and contestants are compared at those; "
            "leave `tournament.macs` out"
        )
    if target not in (None, "macs") and macs is None:
        return (
            f"`criterion: tournament` compares channels and heads at equal MACs, and "
            f"`allocation.target.of` is `{target}`; say in `tournament.macs` what share of the "
            "MACs contestants keep"
        )
    return None


S = TypeVar("S", bound=RecipeModel)


@dataclass(frozen=True)
class Entry(Generic[S]):
    """A criterion in a tournament: the stage as that criterion would have it, or why it cannot."""

    criterion: str
    stage: S | None
    reason: str = ""


def entries(stage: S) -> Iterator[Entry[S]]:
    """Every contestant of a stage, in order.

    Under `all`, criteria that never judge at the stage's granularity are no contestants.
    """
    fields = stage.model_dump(exclude={"criterion", "tournament", "scoring", "slices"})
    if fields["normalize"] == _OWN_NORMALIZE:
        del fields["normalize"]
    asked = (getattr(stage, "tournament", None) or Tournament()).criteria
    for name in get_args(Criterion) if asked == "all" else asked:
        if asked == "all" and not _judges(name, fields["granularity"]):
            continue
        chosen = {
            "criterion": name,
            "scoring": _scoring_of(name, getattr(stage, "scoring", None)),
            "slices": _slices_of(name, fields["granularity"], getattr(stage, "slices", None)),
        }
        try:
            own = type(stage).model_validate({**fields, **chosen})
        except ValidationError as error:
            message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            yield Entry(name, None, message)
        else:
            yield Entry(name, own)


def _judges(name: str, granularity: str) -> bool:
    return name not in TICKET_CRITERIA and granularity_fault(name, granularity) is None


def _slices_of(name: str, granularity: str, slices: SlicesScored | None) -> SlicesScored:
    """The stage's `slices` where this criterion has a choice."""
    if slices is None or slices_fault(name, granularity) is not None:
        return "producing"
    return slices


def _scoring_of(name: str, scoring: Scoring | None) -> dict[str, Any] | None:
    """What of the stage's `scoring` this criterion uses."""
    if scoring is None or name not in (*INPUT_CRITERIA, *GRADIENT_CRITERIA):
        return None
    unused = {"target"} if name in INPUT_CRITERIA else set()
    return scoring.model_dump(exclude=unused if name == "movement" else {*unused, "epochs", "lr"})
