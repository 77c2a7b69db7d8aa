"""The curves of a sensitivity scan: what is left of the model, layer by layer, over the ratio.

A small panel for each layer, all with the same axes, so that they compare at a glance; the value of
the whole model is dotted in each.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from secateur.report import MetricReport
from secateur.report_base import CLASSIFICATION
from secateur.report_score import LayerScan, Scan, ScanPoint, ScoreReport

from reporting.standalone_svg import standalone
from reporting.svg import AFTER, FULL_WIDTH, MUTED, figure_style, inline

MOST_PANELS = 40
"""More layers than this: the most sensitive are drawn, and the table has all."""
_COLUMNS = 4
_LONGEST = 26
"""Letters of a layer's name over its panel; the end of a name tells layers apart."""
NAMES = {
    "accuracy": "top-1 accuracy",
    "drift": "drift of the outputs",
    "loss": "average loss",
    "metric": "metric",
}


def quantity(scan: Scan, point: ScanPoint) -> float | None:
    """What a scan measures, at one point."""
    if scan.measure == "accuracy":
        return None if point.accuracy is None else point.accuracy.top1
    if scan.measure == "metric":
        return point.metric
    return point.drift if scan.measure == "drift" else point.loss


def whole(scan: Scan) -> float | None:
    """The same of the model with everything in it."""
    if scan.measure == "accuracy":
        return None if scan.accuracy is None else scan.accuracy.top1
    if scan.measure == "metric":
        return scan.metric
    return 0.0 if scan.measure == "drift" else scan.loss


def drawn_layers(scan: Scan) -> list[LayerScan]:
    """The layers that get a panel, in the order of the model."""
    ranked = sorted(
        scan.layers,
        key=lambda layer: -(float("inf") if layer.sensitivity is None else layer.sensitivity),
    )
    chosen = {layer.name for layer in ranked[:MOST_PANELS]}
    return [layer for layer in scan.layers if layer.name in chosen]


def name_of(scan: Scan, metric: MetricReport = CLASSIFICATION.decides) -> str:
    """What a scan measures, in words; `metric` is the job's."""
    return metric.title if scan.measure == "metric" else NAMES[scan.measure]


def is_fraction(scan: Scan, metric: MetricReport = CLASSIFICATION.decides) -> bool:
    """Whether what it measures is a share, shown in per cent."""
    return scan.measure == "accuracy" or (scan.measure == "metric" and metric.fraction)


def sensitivity_plot(scan: Scan, metric: MetricReport = CLASSIFICATION.decides) -> Markup:
    """The panels of one scan, as part of a page."""
    return _plot([scan], metric, name=f"sensitivity-{scan.stage_index}")


def sensitivity_figure(report: ScoreReport) -> str:
    """All scans of a job as one SVG file."""
    return standalone(_plot(report.scans, report.objective.decides, name="sensitivity"))


def _plot(scans: Sequence[Scan], metric: MetricReport, *, name: str) -> Markup:
    heights = [0.75 + 1.3 * -(-len(drawn_layers(scan)) // _COLUMNS) for scan in scans]
    with figure_style():
        figure = Figure(figsize=(FULL_WIDTH, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(scans), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, scan in zip(parts, scans, strict=True):
            _panels(part, scan, metric)
        said = "; ".join(
            f"{name_of(scan, metric)} of {len(drawn_layers(scan))} layers" for scan in scans
        )
        return inline(
            figure,
            name=name,
            label=f"What pruning one layer alone leaves, against the share removed of it: {said}; "
            "the numbers are in the report.",
        )


def _panels(figure: Figure, scan: Scan, metric: MetricReport) -> None:
    layers = drawn_layers(scan)
    rows = -(-len(layers) // _COLUMNS)
    panels: list[Axes] = list(
        figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True, sharey=True).flat
    )
    for axes, layer in zip(panels, layers, strict=False):
        _curve(axes, scan, layer)
    for axes in panels[len(layers) :]:
        axes.set_visible(False)
    for axes in panels[max(len(layers) - _COLUMNS, 0) : len(layers)]:
        axes.tick_params(labelbottom=True)  # also above a place without a panel
    panels[0].set_xlim(0, 1)
    panels[0].set_xticks([0, 0.25, 0.5, 0.75], minor=False)
    panels[0].xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    panels[0].yaxis.set_major_locator(MaxNLocator(4))
    if is_fraction(scan, metric):
        panels[0].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    else:
        panels[0].set_ylim(bottom=0)
    units = {"channel": "channels", "head": "heads", "element": "weights"}[scan.granularity]
    figure.supxlabel(
        f"share of the layer's {units} removed, by {scan.criterion}", fontsize=8.5, color=MUTED
    )
    figure.supylabel(name_of(scan, metric), fontsize=8.5, color=MUTED)


def _curve(axes: Axes, scan: Scan, layer: LayerScan) -> None:
    start = whole(scan)
    points = [] if start is None else [(0.0, start)]
    for point in layer.points:
        value = quantity(scan, point)
        # What really went: ratios are rounded to whole units, and some of these must stay.
        if value is not None and point.removed:
            points.append((point.removed / layer.units, value))
    if start is not None:
        axes.axhline(start, color=MUTED, linewidth=0.9, linestyle=":")
    if points:
        axes.plot(*zip(*points, strict=True), color=AFTER, marker="o", markersize=3)
    name = layer.name
    axes.set_title(name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}")
    axes.grid(axis="y")
