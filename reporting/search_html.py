"""The report of a search as one self-contained HTML file: the front and every trial."""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from secateur.recipe_objective import METRICS
from secateur.report_search import SearchReport, TrialReport
from secateur.search_space import shown

from reporting import formatting
from reporting.formatting import MISSING
from reporting.front_plot import NAMES, front_plot
from reporting.html import MAX_OPEN_ROWS, environment

_SHOWN = (*METRICS, "macs", "params", "file_bytes", "latency_ms")
_STATES = {"succeeded": "", "infeasible": "infeasible", "failed": "failed", "canceled": "canceled"}


@dataclass(frozen=True)
class TrialRow:
    """One trial, ready to be written down."""

    number: int
    marks: str
    job_id: str
    parameters: list[str]
    cells: list[str]
    reason: str


def render(report: SearchReport) -> str:
    """The report as an HTML document."""
    paths = list(report.recipe["search"]["space"])
    measured = [name for name in _SHOWN if any(name in one.values for one in report.trials)]
    rows = {trial.number: _row(report, trial, paths, measured) for trial in report.trials}
    return (
        environment()
        .get_template("search.html.j2")
        .render(
            report=report,
            plot=front_plot(report),
            objectives=[
                f"{'highest' if one.direction == 'maximize' else 'lowest'} {NAMES[one.name]}"
                for one in report.objectives
            ],
            paths=paths,
            columns=[NAMES[name] for name in measured],
            before=[value_of(name, report.before.get(name)) for name in measured],
            front=[rows[number] for number in report.front],
            rows=list(rows.values()),
            best=[(NAMES[name], rows[number]) for name, number in report.best.items()],
            max_open_rows=MAX_OPEN_ROWS,
            recipe=_yaml(report.recipe),
            result_recipe=None if report.provenance is None else _yaml(report.provenance.recipe),
        )
    )


def value_of(name: str, value: float | None) -> str:
    """A quantity as a reader wants it."""
    if value is None:
        return MISSING
    if name in METRICS and METRICS[name].fraction:
        return formatting.percent(value, 2)
    if name in METRICS or name == "latency_ms":
        return f"{value:.4f}"
    return formatting.integer(int(value))


def _row(
    report: SearchReport, trial: TrialReport, paths: list[str], measured: list[str]
) -> TrialRow:
    marks = [_STATES[trial.state]] if _STATES[trial.state] else []
    if trial.number in report.front and len(report.objectives) > 1:
        marks.append("front")
    if trial.number == report.knee:
        marks.append("knee")
    if trial.number == report.chosen:
        marks.append("result")
    return TrialRow(
        number=trial.number,
        marks=", ".join(marks),
        job_id=trial.job_id,
        parameters=[shown(trial.parameters.get(path)) for path in paths],
        cells=[value_of(name, trial.values.get(name)) for name in measured],
        reason=trial.reason,
    )


def _yaml(recipe: object) -> str:
    return yaml.safe_dump(
        recipe,
        sort_keys=False,
        allow_unicode=True,
        width=88,
        default_flow_style=None,  # short lists and objects on one line
    )
