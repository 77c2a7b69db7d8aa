"""The report of a search: every trial, the front, and which of it is the result.

The result itself has a report of its own, that of its trial, with its certificate.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from secateur.recipe_search import Quantity
from secateur.report import Provenance, ReportModel


class Objective(ReportModel):
    """What trials are judged by."""

    name: Quantity
    direction: Literal["maximize", "minimize"]


class TrialReport(ReportModel):
    """One trial."""

    number: int
    """From 0, in the order in which they were started."""
    job_id: str
    state: Literal["succeeded", "infeasible", "failed", "canceled"]
    """`infeasible`: it breaks a bound of the search or a constraint of the recipe."""
    parameters: dict[str, Any]
    """Its values, by the paths of the space."""
    values: dict[str, float]
    """All quantities of its result that were measured, objectives or not; empty where it failed."""
    reason: str = ""
    """Why it is not acceptable; empty where it is."""
    elapsed_seconds: float | None = None
    """From the start of its first attempt to its end; null where it never started."""
    artifacts: dict[str, str] = Field(default={})
    """Ids of its files by kind: `model`, `report_json`, `report_html`, ..."""


class SearchReport(ReportModel):
    """The whole report of a search."""

    version: Literal[1] = 1
    kind: Literal["search"] = "search"
    summary: str
    warnings: list[str]
    objectives: list[Objective]
    sampler: str
    before: dict[str, float]
    """Quantities of the upload, as the trial that is the result measured them (without a result,
    the first trial that measured any)."""
    trials: list[TrialReport]
    """By number."""
    front: list[int]
    """Numbers of the trials that no other is better than in everything, the best by the first
    objective first; of a single objective the one best trial."""
    best: dict[str, int]
    """Number of the best acceptable trial by each objective; the earlier one of equals."""
    knee: int | None
    """Number of the trial of the front that gives most for what it gives up; null without a front
    and for a single objective."""
    chosen: int | None
    """Number of the trial whose model is the search's own; null where none is acceptable."""
    chosen_by: str
    """`knee`, or the objective it is the best by."""
    recipe: dict[str, Any]
    """With the space, as it was written."""
    provenance: Provenance | None = None
    """Of the trial that is the result: its recipe makes the model again; null without one."""

    def trial(self, number: int) -> TrialReport:
        """One trial by its number."""
        return next(trial for trial in self.trials if trial.number == number)
