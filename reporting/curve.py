"""Accuracy against size: right after pruning, and after the training that followed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter
from secateur.report import Accuracy, CurvePoint, Measurement

from reporting import formatting
from reporting.formatting import MISSING, percent
from reporting.svg import AFTER, BEFORE, FULL_WIDTH, MUTED, figure_style, inline, legend_above

LEAST_POINTS = 2
"""Fewer rounds make no curve; the stage table has them."""
_MOST_TICKS = 8
_APART = 0.06
"""Least distance of two ticks, as a share of the axis."""


@dataclass(frozen=True)
class CurveRow:
    """One round in the table below the curve."""

    label: str
    kept: str
    ratio: str
    pruned: str
    retrained: str


def curve_rows(points: list[CurvePoint]) -> list[CurveRow]:
    """The numbers of the curve."""
    return [
        CurveRow(
            point.label,
            percent(point.kept_fraction),
            formatting.ratio(1 / point.kept_fraction) if point.kept_fraction else MISSING,
            _shown(point.pruned),
            _shown(point.retrained),
        )
        for point in points
    ]


def _shown(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return MISSING
    return f"{accuracy.correct:,} / {accuracy.total:,} = {percent(accuracy.top1, 2)}"


def missing_points(points: list[CurvePoint]) -> str:
    """Which points the curves do not have, in a sentence; empty where none is missing."""
    if all(point.pruned is None for point in points):
        return "The job had no validation split with targets, so no accuracy was measured."
    untrained = [point.label for point in points if point.retrained is None]
    if len(untrained) == len(points):
        return "No round was followed by training, so there is no curve after training."
    if not untrained:
        return ""
    named = ", ".join(untrained[:6])
    more = f" and {len(untrained) - 6} more" if len(untrained) > 6 else ""
    return f"Not followed by training, and without a point after it: {named}{more}."


def curve_plot(before: Measurement, points: list[CurvePoint]) -> Markup | None:
    """Both curves over the kept fraction, which shrinks to the right on a logarithmic axis."""
    drawn = [point for point in points if point.pruned is not None and point.kept_fraction > 0]
    if len(drawn) < LEAST_POINTS:
        return None
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 2.9), layout="constrained")
        axes = figure.subplots()
        for name, colour, dashes, values in (
            ("after pruning", BEFORE, (4, 2), [(p.kept_fraction, p.pruned) for p in drawn]),
            ("after training", AFTER, (), [(p.kept_fraction, p.retrained) for p in drawn]),
        ):
            line = [(kept, accuracy.top1) for kept, accuracy in values if accuracy is not None]
            if line:
                (curve,) = axes.plot(
                    *zip(*line, strict=True), color=colour, label=name, marker="o", markersize=4
                )
                if dashes:
                    curve.set_dashes(dashes)
        if before.accuracy is not None:
            axes.axhline(
                before.accuracy.top1, color=MUTED, linewidth=0.9, linestyle=":", label="original"
            )
        axes.set_xscale("log")
        axes.set_xticks(_ticks([point.kept_fraction for point in drawn]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.invert_xaxis()
        axes.margins(y=0.15)
        axes.grid(axis="y")
        axes.set_xlabel("non-zero parameters left, as a share of the original's (logarithmic)")
        axes.set_title("Top-1 accuracy")
        legend_above(axes)
        return inline(
            figure,
            name="curve",
            label="Accuracy against the share of parameters kept, after pruning and after "
            "training; the numbers are in the table below.",
        )


def _ticks(kept: list[float]) -> list[float]:
    """The points' own values, without those whose labels would overlap."""
    values = sorted(set(kept))
    least = math.exp(_APART * math.log(values[-1] / values[0]))
    ticks = values[:1]
    for value in values[1:]:
        if value >= ticks[-1] * least:
            ticks.append(value)
    return ticks[:: -(-len(ticks) // _MOST_TICKS)]
