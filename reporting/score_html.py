"""The report of a score job as one self-contained HTML file: plot and table of every scan."""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from markupsafe import Markup
from secateur.report import Accuracy
from secateur.report_score import LayerScan, Scan, ScanPoint, ScoreReport

from reporting import formatting, tables
from reporting.formatting import MISSING
from reporting.html import MAX_OPEN_ROWS, environment
from reporting.sensitivity_plot import MOST_PANELS, NAMES, sensitivity_plot

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
            parts=[_part(scan) for scan in report.scans],
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


def _part(scan: Scan) -> ScanPart:
    samples = f"{formatting.integer(scan.samples)} sample{'' if scan.samples == 1 else 's'}"
    return ScanPart(
        scan=scan,
        title=f"{NAMES[scan.measure].capitalize()} by {_UNITS[scan.granularity]} removed",
        measured_on=f"the example ({samples})"
        if scan.split == "example"
        else f"{samples} of the {scan.split} split",
        whole=_cell(scan, scan.loss, scan.accuracy, None) if scan.measure != "drift" else "",
        units=_UNITS[scan.granularity],
        sensitivity=_SENSITIVITY[scan.measure],
        ratios=[formatting.percent(ratio) for ratio in scan.ratios],
        rows=[_row(scan, layer) for layer in scan.layers],
        frozen=tables.frozen(scan.frozen),
        plot=sensitivity_plot(scan),
        undrawn=max(len(scan.layers) - MOST_PANELS, 0),
    )


def _row(scan: Scan, layer: LayerScan) -> LayerRow:
    others = [name for name in layer.members if name != layer.name]
    more = len(others) - tables.MAX_NAMED_LAYERS
    named = ", ".join(others[: tables.MAX_NAMED_LAYERS]) + (f" and {more} more" if more > 0 else "")
    return LayerRow(
        name=layer.name,
        members=named,
        units=formatting.integer(layer.units),
        removable=formatting.integer(layer.removable),
        sensitivity=_sensitivity(scan, layer.sensitivity),
        cells=[_point(scan, point) for point in layer.points],
        removed=[formatting.integer(point.removed) for point in layer.points],
    )


def _sensitivity(scan: Scan, value: float | None) -> str:
    if value is None:
        return MISSING
    return formatting.points(value) if scan.measure == "accuracy" else f"{value:.4f}"


def _point(scan: Scan, point: ScanPoint) -> str:
    return _cell(scan, point.loss, point.accuracy, point.drift)


def _cell(scan: Scan, loss: float | None, accuracy: Accuracy | None, drift: float | None) -> str:
    if scan.measure == "accuracy":
        return MISSING if accuracy is None else formatting.percent(accuracy.top1, 2)
    value = drift if scan.measure == "drift" else loss
    return MISSING if value is None else f"{value:.4f}"
