"""The report of a score job as one self-contained HTML file: plot and table of every scan."""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from markupsafe import Markup
from secateur.report import MetricReport
from secateur.report_score import LayerScan, Scan, ScoreReport

from reporting import formatting, tables
from reporting.formatting import MISSING
from reporting.html import MAX_OPEN_ROWS, environment
from reporting.sensitivity_plot import (
    MOST_PANELS,
    is_fraction,
    name_of,
    quantity,
    sensitivity_plot,
    whole,
)

_UNITS = {"channel": "channels", "head": "heads", "element": "weights"}
_SENSITIVITY = {
    "accuracy": "Mean accuracy lost",
    "drift": "Mean drift",
    "loss": "Mean rise of the loss",
}


@dataclass(frozen=True)
class LayerRow:
    """One layer, at all ratios; `members` where it stands for several."""

    name: str
    members: str
    units: str
    removable: str
    sensitivity: str
    cells: list[str]
    removed: list[str]


@dataclass(frozen=True)
class ScanPart:
    """One scan, ready to be written down."""

    scan: Scan
    title: str
    measured_on: str
    whole: str
    units: str
    sensitivity: str
    ratios: list[str]
    rows: list[LayerRow]
    frozen: list[tables.FrozenGroup]
    plot: Markup
    undrawn: int


def render(report: ScoreReport) -> str:
    """The report as an HTML document."""
    return (
        environment()
        .get_template("score.html.j2")
        .render(
            report=report,
            parts=[_part(scan, report.objective.decides) for scan in report.scans],
            max_open_rows=MAX_OPEN_ROWS,
            recipe=yaml.safe_dump(
                report.provenance.recipe,
                sort_keys=False,
                allow_unicode=True,
                width=88,
                default_flow_style=None,  # short lists and objects on one line
            ),
        )
    )


def _part(scan: Scan, metric: MetricReport) -> ScanPart:
    samples = f"{formatting.integer(scan.samples)} sample{'' if scan.samples == 1 else 's'}"
    return ScanPart(
        scan=scan,
        title=f"{title(name_of(scan, metric))} by {_UNITS[scan.granularity]} removed",
        measured_on=f"the example ({samples})"
        if scan.split == "example"
        else f"{samples} of the {scan.split} split",
        whole=_cell(whole(scan), metric, scan) if scan.measure != "drift" else "",
        units=_UNITS[scan.granularity],
        sensitivity=_SENSITIVITY.get(scan.measure, f"Mean loss of {metric.title}"),
        ratios=[formatting.percent(ratio) for ratio in scan.ratios],
        rows=[_row(scan, layer, metric) for layer in scan.layers],
        frozen=tables.frozen(scan.frozen),
        plot=sensitivity_plot(scan, metric),
        undrawn=max(len(scan.layers) - MOST_PANELS, 0),
    )


def _row(scan: Scan, layer: LayerScan, metric: MetricReport) -> LayerRow:
    others = [name for name in layer.members if name != layer.name]
    more = len(others) - tables.MAX_NAMED_LAYERS
    named = ", ".join(others[: tables.MAX_NAMED_LAYERS]) + (f" and {more} more" if more > 0 else "")
    return LayerRow(
        name=layer.name,
        members=named,
        units=formatting.integer(layer.units),
        removable=formatting.integer(layer.removable),
        sensitivity=_sensitivity(scan, layer.sensitivity, metric),
        cells=[_cell(quantity(scan, point), metric, scan) for point in layer.points],
        removed=[formatting.integer(point.removed) for point in layer.points],
    )


def _sensitivity(scan: Scan, value: float | None, metric: MetricReport) -> str:
    if value is None:
        return MISSING
    return formatting.points(value) if is_fraction(scan, metric) else f"{value:.4f}"


def _cell(value: float | None, metric: MetricReport, scan: Scan) -> str:
    if value is None:
        return MISSING
    return formatting.percent(value, 2) if is_fraction(scan, metric) else f"{value:.4f}"


def title(words: str) -> str:
    """With a capital; `IoU` keeps its own."""
    return words[:1].upper() + words[1:]
