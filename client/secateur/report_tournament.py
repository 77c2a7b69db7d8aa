"""The table of a tournament: what each criterion made of the model at the same cost."""

from __future__ import annotations

from typing import Literal

from secateur.report_base import Accuracy, ReportModel


class Contestant(ReportModel):
    """A criterion in a tournament; everything but its name and the reason is null where it could
    not compete."""

    criterion: str
    reason: str | None = None
    """Why it could not compete; null where it did."""
    amount: float | None = None
    """Share of the channels, heads or weights that were gone at this cost, of those before the
    stage."""
    removed: int | None = None
    """The same as a number."""
    matched: bool | None = None
    """Whether its cost is within the tolerance; where not, it had to do with less."""
    macs: int | None = None
    parameters: int | None = None
    nonzero_parameters: int | None = None
    loss_before: float | None = None
    """Validation loss after pruning, before recovery; null too where it is no finite number."""
    accuracy_before: Accuracy | None = None
    metric_before: float | None = None
    """Of the metric that decides; null where it is no finite number, and in older reports."""
    loss: float | None = None
    """After recovery; the same as before where there was none."""
    accuracy: Accuracy | None = None
    metric: float | None = None
    """Of the metric that decides, after recovery."""
    seconds: float | None = None
    """Scoring, pruning, recovery and evaluation."""


class TournamentReport(ReportModel):
    """How the criterion of a prune stage was decided."""

    stage_index: int
    matched_by: Literal["macs", "nonzero_parameters"]
    """The cost that all contestants were brought to. Masks of single weights leave MACs as they
    are, so those are matched by the weights that are not masked."""
    before: int
    """That cost before the stage."""
    target: int
    """What every contestant should have; a cost above by more than `tolerance` is never used."""
    tolerance: float
    """As a share of `target`."""
    recovery_epochs: int
    """Of every contestant; 0 without recovery."""
    recovery_steps: int | None
    """Optimiser steps after which it ended, where the recipe says so."""
    contestants: list[Contestant]
    """In the order of the recipe."""
    winner: str | None
    """The criterion of the stage: best metric after recovery, then lowest loss, then first in
    order. Null while contestants are missing."""
