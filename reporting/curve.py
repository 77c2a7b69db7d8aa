"""The metric against size: right after pruning, and after the training that followed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter
from secateur.report import CurvePoint, Measurement, MetricReport
from secateur.report_base import CLASSIFICATION

from reporting import formatting
from reporting.formatting import MISSING, percent
from reporting.metric import height, shown, title
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


def curve_rows(
    points: list[CurvePoint], metric: MetricReport = CLASSIFICATION.decides
) -> list[CurveRow]:
    """The numbers of the curve, of the metric that decides."""
    return [
        CurveRow(
            point.label,
            percent(point.kept_fraction),
            formatting.ratio(1 / point.kept_fraction) if point.kept_fraction else MISSING,
            shown(metric, point.pruned_metric, point.pruned),
            shown(metric, point.retrained_metric, point.retrained),
        )
        for point in points
    ]


def missing_points(points: list[CurvePoint], metric: MetricReport = CLASSIFICATION.decides) -> str:
    """Which points the curves do not have, in a sentence; empty where none is missing."""
    pruned = [height(metric, point.pruned_metric, point.pruned) for point in points]
    if all(value is None for value in pruned):
        return "The job had no validation split with targets, so nothing was measured on it."
    untrained = [
        point.label
        for point in points
        if height(metric, point.retrained_metric, point.retrained) is None
    ]
    if len(untrained) == len(points):
        return "No round was followed by training, so there is no curve after training."
    if not untrained:
        return ""
    named = ", ".join(untrained[:6])
    more = f" and {len(untrained) - 6} more" if len(untrained) > 6 else ""
    return f"Not followed by training, and without a point after it: {named}{more}."


def curve_plot(
    before: Measurement, points: list[CurvePoint], metric: MetricReport = CLASSIFICATION.decides
) -> Markup | None:
    """Both curves over the kept fraction, which shrinks to the right on a logarithmic axis."""
    drawn = [
        point
        for point in points
        if height(metric, point.pruned_metric, point.pruned) is not None and point.kept_fraction > 0
    ]
    if len(drawn) < LEAST_POINTS:
        return None
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 2.9), layout="constrained")
        axes = figure.subplots()
        for name, colour, dashes, values in (
            (
                "after pruning",
                BEFORE,
                (4, 2),
                [(p.kept_fraction, height(metric, p.pruned_metric, p.pruned)) for p in drawn],
            ),
            (
                "after training",
                AFTER,
                (),
                [(p.kept_fraction, height(metric, p.retrained_metric, p.retrained)) for p in drawn],
            ),
        ):
            line = [(kept, value) for kept, value in values if value is not None]
            if line:
                (curve,) = axes.plot(
                    *zip(*line, strict=True), color=colour, label=name, marker="o", markersize=4
                )
                if dashes:
                    curve.set_dashes(dashes)
        original = height(metric, before.deciding, before.accuracy)
        if original is not None:
            axes.axhline(original, color=MUTED, linewidth=0.9, linestyle=":", label="original")
        axes.set_xscale("log")
        axes.set_xticks(_ticks([point.kept_fraction for point in drawn]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
        if metric.fraction:
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.invert_xaxis()
        axes.margins(y=0.15)
        axes.grid(axis="y")
        axes.set_xlabel("non-zero parameters left, as a share of the original's (logarithmic)")
        axes.set_title(title(metric))
        legend_above(axes)
        return inline(
            figure,
            name="curve",
            label=f"{title(metric)} against the share of parameters kept, after pruning and after "
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
