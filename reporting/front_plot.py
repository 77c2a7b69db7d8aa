"""The trials of a search as points: objective against objective, with the front; of a single
objective, its value trial by trial with the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from secateur.recipe_objective import METRICS
from secateur.report_search import SearchReport, TrialReport

from reporting.formatting import short
from reporting.standalone_svg import standalone
from reporting.svg import AFTER, BEFORE, FULL_WIDTH, INK, MUTED, figure_style, inline, legend_above

NAMES = {
    **{name: kind.title for name, kind in METRICS.items()},
    "loss": "validation loss",
    "macs": "MACs",
    "params": "non-zero parameters",
    "file_bytes": "file, bytes",
    "latency_ms": "latency p50, ms",
}
_HEIGHT = 3.4


def front_figure(report: SearchReport) -> str | None:
    """The same as an SVG file."""
    plot = front_plot(report)
    return None if plot is None else standalone(plot)


def front_plot(report: SearchReport) -> Markup | None:
    """The plot, as part of a page; None where no trial has measured anything."""
    names = [objective.name for objective in report.objectives]
    drawn = [trial for trial in report.trials if all(name in trial.values for name in names)]
    if not drawn:
        return None
    others = names[1:]
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, _HEIGHT), layout="constrained")
        panels: list[Axes] = list(figure.subplots(1, max(len(others), 1), squeeze=False)[0])
        if others:
            for axes, name in zip(panels, others, strict=True):
                _pair(axes, report, drawn, name, names[0])
        else:
            _course(panels[0], report, drawn, names[0])
        legend_above(panels[-1])
        what = f"{NAMES[names[0]]} against {' and '.join(NAMES[name] for name in others)}"
        return inline(
            figure,
            name="front",
            label=f"{what if others else NAMES[names[0]]} of {len(drawn)} trials; the numbers are "
            "in the tables.",
        )


def _pair(axes: Axes, report: SearchReport, drawn: Sequence[TrialReport], x: str, y: str) -> None:
    front = [report.trial(number) for number in report.front]
    rest = [trial for trial in drawn if trial.number not in report.front]
    for state, marker, label in (("succeeded", "o", "trials"), ("infeasible", "x", "infeasible")):
        points = [trial for trial in rest if trial.state == state]
        if points:
            axes.plot(
                *_columns(points, x, y), linestyle="", marker=marker, markersize=4, color=MUTED,
                label=label,
            )  # fmt: skip
    if front:
        ordered = sorted(front, key=lambda trial: trial.values[x])
        # With two objectives the front is a line of steps; with more its shadow is none.
        axes.plot(
            *_columns(ordered, x, y), marker="o", markersize=5, color=AFTER, label="front",
            linestyle="-" if len(report.objectives) == 2 else "", drawstyle="steps-post",
        )  # fmt: skip
    if report.chosen is not None:
        axes.plot(
            *_columns([report.trial(report.chosen)], x, y), linestyle="", marker="o",
            markersize=11, markerfacecolor="none", markeredgecolor=INK, label="result",
        )  # fmt: skip
    if x in report.before and y in report.before:
        axes.plot(
            [report.before[x]], [report.before[y]], linestyle="", marker="*", markersize=9,
            color=BEFORE, label="upload",
        )  # fmt: skip
    axes.set_xlabel(NAMES[x])
    axes.set_title(NAMES[y][0].upper() + NAMES[y][1:])
    axes.margins(x=0.08, y=0.12)
    axes.grid(axis="y")
    _format(axes, x, y)


def _course(axes: Axes, report: SearchReport, drawn: Sequence[TrialReport], name: str) -> None:
    highest = report.objectives[0].direction == "maximize"
    good = [trial for trial in drawn if trial.state == "succeeded"]
    bad = [trial for trial in drawn if trial.state != "succeeded"]
    for trials, marker, label in ((good, "o", "trials"), (bad, "x", "infeasible")):
        if trials:
            axes.plot(
                [trial.number for trial in trials], [trial.values[name] for trial in trials],
                linestyle="", marker=marker, markersize=4, color=MUTED, label=label,
            )  # fmt: skip
    if good:
        best = list(accumulate((t.values[name] for t in good), max if highest else min))
        axes.plot(
            [trial.number for trial in good], best, drawstyle="steps-post", color=AFTER,
            label="best so far",
        )  # fmt: skip
    if name in report.before:
        axes.axhline(report.before[name], color=BEFORE, linestyle=":", linewidth=1, label="upload")
    axes.set_xlabel("trial")
    axes.set_title(NAMES[name][0].upper() + NAMES[name][1:])
    axes.margins(y=0.12)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _format(axes, "", name)


def _columns(trials: Sequence[TrialReport], x: str, y: str) -> tuple[list[float], list[float]]:
    return [trial.values[x] for trial in trials], [trial.values[y] for trial in trials]


def _format(axes: Axes, x: str, y: str) -> None:
    for axis, name in ((axes.xaxis, x), (axes.yaxis, y)):
        if name in METRICS and METRICS[name].fraction:
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        elif name:
            axis.set_major_locator(MaxNLocator(6))
            axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
