"""Trade-off curves: the metric against what is pruned away, with and without retraining."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from secateur.report import Accuracy, MetricReport
from secateur.report_tradeoff import TradeOffCurve, TradeOffReport

from reporting.formatting import percent
from reporting.metric import height, shown, title
from reporting.svg import AFTER, BEFORE, FULL_WIDTH, MUTED, figure_style, inline

LEAST_POINTS = 2
"""Fewer ratios make no curve; the table has them."""
_COLOURS = {"l1": BEFORE, "l2": AFTER, "none": MUTED}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""As many as a recipe may have lines."""


@dataclass(frozen=True)
class TradeOffRow:
    """One ratio of one line in the table below the figure."""

    line: str
    ratio: str
    kept: str
    dense: str
    pruned: str
    retrained: str


def curve_name(curve: TradeOffCurve) -> str:
    """As the figure of Han et al. names its lines."""
    penalty = {"none": "no penalty"}.get(curve.penalty, curve.penalty.upper())
    strength = "" if curve.strength is None else f" {curve.strength:g}"
    criterion = "" if curve.criterion == "l1_norm" else f", by {curve.criterion}"
    return penalty + strength + criterion + (", iterative" if curve.iterative else "")


def tradeoff_rows(report: TradeOffReport, metric: MetricReport) -> list[TradeOffRow]:
    """The numbers of the curves, of the metric that decides."""
    return [
        TradeOffRow(
            curve_name(curve),
            percent(point.ratio),
            percent(point.kept_fraction),
            shown(metric, curve.dense_metric, curve.dense),
            shown(metric, point.pruned_metric, point.pruned),
            shown(metric, point.retrained_metric, point.retrained),
        )
        for curve in report.curves
        for point in curve.points
    ]


def tradeoff_plot(report: TradeOffReport, metric: MetricReport) -> Markup | None:
    """Dashed without retraining, solid with it, over the share of parameters pruned away."""
    if max(len(curve.points) for curve in report.curves) < LEAST_POINTS:
        return None
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        for marker, curve in zip(_MARKERS, report.curves, strict=False):
            gone = [1 - point.kept_fraction for point in curve.points]
            for words, dashes, values in (
                (
                    "without retraining",
                    (4, 2),
                    [_height(metric, p.pruned_metric, p.pruned) for p in curve.points],
                ),
                (
                    "with retraining",
                    (),
                    [_height(metric, p.retrained_metric, p.retrained) for p in curve.points],
                ),
            ):
                (line,) = axes.plot(
                    gone,
                    values,
                    color=_COLOURS[curve.penalty],
                    label=f"{curve_name(curve)}, {words}",
                    marker=marker,
                    markersize=4,
                )
                if dashes:
                    line.set_dashes(dashes)
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        if metric.fraction:
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.margins(y=0.15)
        axes.grid(axis="y")
        axes.set_xlabel("parameters pruned away")
        axes.set_title(title(metric))
        # Up to sixteen entries: beside the plot, where they hide nothing.
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.4)
        return inline(
            figure,
            name="tradeoff",
            label=f"{title(metric)} against the share of parameters pruned away, for every line "
            "without and with retraining; the numbers are in the table below.",
        )


def _height(metric: MetricReport, value: float | None, accuracy: Accuracy | None) -> float:
    """What is drawn; a point that is no number leaves a gap."""
    found = height(metric, value, accuracy)
    return nan if found is None else found
