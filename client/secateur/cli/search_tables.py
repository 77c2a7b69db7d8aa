"""The tables of a search on the command line."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from secateur.cli.console import out
from secateur.recipe_objective import METRICS
from secateur.report_search import SearchReport, TrialReport
from secateur.search_space import parts_of, shown


def print_search(report: SearchReport) -> None:
    """All trials, and below them why those that are not acceptable are not."""
    out.print(trials_table(report))
    for trial in report.trials:
        if trial.reason:
            out.print(f"trial {trial.number} {trial.state}: {escape(trial.reason)}")


def trials_table(report: SearchReport) -> Table:
    """A line for each trial, the upload last."""
    paths = list(report.recipe["search"]["space"])
    names = [objective.name for objective in report.objectives]
    table = Table("trial", "", *(escape(_short(path)) for path in paths), *names, box=None)
    for column in table.columns[2 + len(paths) :]:
        column.justify = "right"
    for trial in report.trials:
        values = [escape(shown(trial.parameters.get(path))) for path in paths]
        cells = [_cell(name, trial.values.get(name)) for name in names]
        table.add_row(str(trial.number), _mark(report, trial), *values, *cells)
    before = [_cell(name, report.before.get(name)) for name in names]
    table.add_row("", "upload", *("" for _ in paths), *before)
    return table


def _short(path: str) -> str:
    """`stages.0.allocation.layers.conv*` as `0 conv*`: stage and last step tell paths apart."""
    parts = parts_of(path)
    return f"{parts[1]} {parts[-1]}"


def _mark(report: SearchReport, trial: TrialReport) -> str:
    if trial.number == report.chosen:
        return "result"
    if trial.number in report.front:
        return "front"
    return "" if trial.state == "succeeded" else trial.state


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name in METRICS and METRICS[name].fraction:
        return f"{100 * value:.2f} %"
    return f"{value:.4f}" if name in METRICS or name == "latency_ms" else f"{value:,.0f}"
