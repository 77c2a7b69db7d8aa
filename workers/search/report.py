"""The report of a search, from what is known of its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from secateur.recipe_search import MAXIMIZED, Search
from secateur.report import Report
from secateur.report_search import Objective, SearchReport, TrialReport

from persistence.records import JobRecord
from workers.search.front import knee, pareto_front
from workers.search.outcome import Outcome

_MANY = 0.5
"""Share of trials that came to nothing at which the report warns."""


@dataclass(frozen=True)
class Ended:
    """A trial and what became of it."""

    record: JobRecord
    outcome: Outcome


@dataclass(frozen=True)
class Standing:
    """How the acceptable trials compare, by trial number."""

    front: list[int]
    best: dict[str, int]
    knee: int | None
    chosen: int | None
    chosen_by: str


def compare(search: Search, trials: Sequence[TrialReport]) -> Standing:
    """Front, best and choice among the trials that succeeded."""
    good = [trial for trial in trials if trial.state == "succeeded"]
    by = search.choose if len(search.objectives) > 1 else search.objectives[0]
    if not good:
        return Standing([], {}, None, None, by)
    points = [[_turned(name, trial.values[name]) for name in search.objectives] for trial in good]
    front = sorted(pareto_front(points), key=lambda place: (points[place], good[place].number))
    best: dict[str, int] = {}
    for index, name in enumerate(search.objectives):
        column = [point[index] for point in points]
        best[name] = good[column.index(min(column))].number
    numbers = [good[place].number for place in front]
    at_knee = None
    if len(search.objectives) > 1:
        at_knee = numbers[knee([points[place] for place in front])]
    # the first of the front by an objective is as good as the best by it, and better beside it
    chosen = at_knee
    if by != "knee":
        index = search.objectives.index(by)
        chosen = good[min(front, key=lambda place: (points[place][index], points[place]))].number
    return Standing(numbers, best, at_knee, chosen, by)


def _turned(name: str, value: float) -> float:
    """So that less is better."""
    return -value if name in MAXIMIZED else value


def trial_report(trial: Ended) -> TrialReport:
    """One trial as the report shows it."""
    record = trial.record
    started, finished = record.started_at, record.finished_at
    return TrialReport(
        number=record.trial_number or 0,
        job_id=record.id,
        state=trial.outcome.state,
        parameters=(record.trial or {})["parameters"],
        values=trial.outcome.values,
        reason=trial.outcome.reason,
        elapsed_seconds=None
        if started is None or finished is None
        else (finished - started).total_seconds(),
        artifacts={one.kind: one.id for one in record.artifacts if one.kind != "checkpoint"},
    )


def search_report(
    recipe: dict[str, Any],
    search: Search,
    trials: Sequence[TrialReport],
    standing: Standing,
    *,
    before: dict[str, float],
    winner: Report | None,
) -> SearchReport:
    """The whole report.

    Args:
        recipe: of the search, as it was written.
        search: its `search`.
        trials: all, by number.
        standing: how they compare.
        before: quantities of the upload.
        winner: report of the chosen trial.
    """
    return SearchReport(
        summary=_summary(search, trials, standing),
        warnings=_warnings(search, trials, standing, winner),
        objectives=[
            Objective(name=name, direction="maximize" if name in MAXIMIZED else "minimize")
            for name in search.objectives
        ],
        sampler=search.sampler,
        before=before,
        trials=list(trials),
        front=standing.front,
        best=standing.best,
        knee=standing.knee,
        chosen=standing.chosen,
        chosen_by=standing.chosen_by,
        recipe=recipe,
        provenance=None if winner is None else winner.provenance,
    )


def _summary(search: Search, trials: Sequence[TrialReport], standing: Standing) -> str:
    states = Counter(trial.state for trial in trials)
    counts = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}"
    if standing.chosen is None:
        return f"{counts}, and none has an acceptable result"
    chosen = next(trial for trial in trials if trial.number == standing.chosen)
    figures = ", ".join(f"{name} {chosen.values[name]:.6g}" for name in search.objectives)
    why = "at the knee" if standing.chosen_by == "knee" else f"the best by {standing.chosen_by}"
    front = f", {len(standing.front)} of them on the front" if len(search.objectives) > 1 else ""
    others = "".join(
        f", {states[state]} {state}"
        for state in ("infeasible", "failed", "canceled")
        if states[state]
    )
    return f"{counts}{front}{others}; trial {chosen.number} is {why}: {figures}"


def _warnings(
    search: Search, trials: Sequence[TrialReport], standing: Standing, winner: Report | None
) -> list[str]:
    found = []
    if len(trials) < search.trials:
        found.append(f"the space has only {len(trials)} points; all were tried")
    lost = [trial for trial in trials if trial.state in ("failed", "canceled")]
    if lost:
        reason, times = Counter(trial.reason for trial in lost).most_common(1)[0]
        share = "most" if len(lost) > _MANY * len(trials) else f"{len(lost)}"
        found.append(
            f"{share} of the {len(trials)} trials came to nothing; the most frequent reason "
            f"({times} times): {reason}"
        )
    if winner is not None:
        found.extend(f"trial {standing.chosen}: {text}" for text in winner.verdict.warnings)
    return found


def short_result(report: SearchReport) -> dict[str, Any]:
    """What the job itself shows: the result, and the front."""
    return {
        "summary": report.summary,
        "warnings": report.warnings,
        "chosen": None if report.chosen is None else _short(report.trial(report.chosen)),
        "front": [_short(report.trial(number)) for number in report.front],
    }


def _short(trial: TrialReport) -> dict[str, Any]:
    return trial.model_dump(include={"number", "job_id", "parameters", "values"})
