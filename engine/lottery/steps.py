"""The training runs of a ticket stage, as steps of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secateur.recipe import FinetuneOptions, Imp, ImpRewind, PruneStage, Supermask

Part = Literal["start", "round", "ticket", "copy", "mask"]
TicketSchedule = Imp | ImpRewind | Supermask


@dataclass(frozen=True)
class TicketStep:
    """One training run of a ticket stage.

    Attributes:
        stage_index: of the prune stage.
        stage: the prune stage.
        part: `start` up to the rewinding point, `round` before a prune round, `ticket` at the end,
            `copy` the same with another order of the data, `mask` of a mask over frozen weights.
        number: of the round or copy, from 1.
    """

    stage_index: int
    stage: PruneStage
    part: Part
    number: int = 1

    @property
    def schedule(self) -> TicketSchedule:
        """The stage's schedule."""
        schedule = self.stage.schedule
        if not isinstance(schedule, TicketSchedule):
            raise TypeError(f"a stage with schedule `{schedule.kind}` has no tickets")
        return schedule

    @property
    def options(self) -> FinetuneOptions:
        """How it trains. A rewinding point and a mask are kept as they end, unaveraged."""
        options = self.schedule.training
        if self.part not in ("start", "mask"):
            return options
        return options.model_copy(update={"keep": "last", "ema": None, "early_stopping": None})

    @property
    def rounds(self) -> int:
        """Prune rounds of the stage."""
        schedule = self.schedule
        return 1 if isinstance(schedule, Supermask) else schedule.rounds

    @property
    def label(self) -> str:
        """Human name."""
        schedule = self.schedule
        if self.part == "start":
            return "train to the rewinding point"
        if self.part == "mask":
            return "learn the mask"
        if isinstance(schedule, Supermask):
            return "train a copy for the mask"
        if self.part == "round":
            return f"train before round {self.number} of {schedule.rounds}"
        if self.part == "ticket":
            return "train the ticket"
        copies = schedule.copies if isinstance(schedule, ImpRewind) else 1
        return f"train copy {self.number} of {copies}"

    @property
    def field(self) -> str:
        """Path in the recipe."""
        return f"recipe.stages.{self.stage_index}.schedule.training"

    @property
    def purpose(self) -> str:
        """Names the run for its seeds: every run has its own order of the data."""
        return f"ticket/{self.stage_index}/{self.part}/{self.number}"

    @property
    def shown_round(self) -> int | None:
        """The round in reports."""
        return self.number if self.part == "round" else None

    @property
    def aside(self) -> bool:
        """Whether the job's program stays what it is."""
        return self.part == "copy"

    def rewinding_step(self, per_epoch: int) -> int:
        """k in optimiser steps."""
        if not isinstance(self.schedule, ImpRewind):
            return 0
        return self.schedule.rewind_step or (self.schedule.rewind_epoch or 0) * per_epoch


def before_round(index: int, stage: PruneStage, number: int, *, given: bool) -> list[TicketStep]:
    """What is trained before a prune round.

    Args:
        index: of the stage.
        stage: with a ticket schedule.
        number: of the round, from 1.
        given: the initial weights came with the job, and the upload was trained from them.
    """
    if isinstance(stage.schedule, Supermask) and stage.schedule.mask == "learned":
        return [TicketStep(index, stage, "mask")]
    if number > 1:
        return [TicketStep(index, stage, "round", number)]
    if given:
        return []
    start = isinstance(stage.schedule, ImpRewind)
    first = [TicketStep(index, stage, "start")] if start else []
    return [*first, TicketStep(index, stage, "round", 1)]


def after_rounds(index: int, stage: PruneStage) -> list[TicketStep]:
    """The training of the ticket, and of its copies."""
    if isinstance(stage.schedule, Supermask):
        return []
    copies = stage.schedule.copies if isinstance(stage.schedule, ImpRewind) else 1
    return [
        TicketStep(index, stage, "ticket"),
        *(TicketStep(index, stage, "copy", number) for number in range(2, copies + 1)),
    ]
