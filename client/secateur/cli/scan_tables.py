"""The tables of a score job on the command line."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from secateur.cli.console import out
from secateur.report_score import LayerScan, Scan, ScanPoint, ScoreReport


def print_scans(report: ScoreReport) -> None:
    """A table for each scan."""
    for scan in report.scans:
        out.print(scan_table(scan))


def scan_table(scan: Scan) -> Table:
    """A line for each layer, a column for each ratio."""
    shares = [f"{100 * ratio:g} %" for ratio in scan.ratios]
    table = Table(
        "layer", "units", *shares, "sensitivity", title=scan.measure, title_justify="left"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for layer in scan.layers:
        table.add_row(escape(layer.name), str(layer.units), *_cells(scan, layer))
    return table


def _cells(scan: Scan, layer: LayerScan) -> list[str]:
    sensitivity = "-" if layer.sensitivity is None else f"{layer.sensitivity:.4f}"
    return [*(_cell(scan, point) for point in layer.points), sensitivity]


def _cell(scan: Scan, point: ScanPoint) -> str:
    if scan.measure == "accuracy":
        return "-" if point.accuracy is None else f"{100 * point.accuracy.top1:.2f} %"
    if scan.measure == "metric":
        return "-" if point.metric is None else f"{point.metric:.4g}"
    value = point.drift if scan.measure == "drift" else point.loss
    return "-" if value is None else f"{value:.4f}"
