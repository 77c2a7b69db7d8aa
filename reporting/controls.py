"""The controls beside the result: the same architecture from new weights, or a random choice."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.report import MetricReport, Report

from reporting import formatting, metric
from reporting.formatting import MISSING

_MEANING = {
    "scratch_e": "the result's architecture, trained from new weights for as many epochs",
    "scratch_b": "the same, for as much computation",
    "random_pruning": "the upload without as many units of every layer, drawn by lot, and trained",
}


@dataclass(frozen=True)
class ControlRow:
    """One control, or the result above them."""

    name: str
    meaning: str
    epochs: str
    loss: str
    accuracy: str
    difference: str


def control_rows(report: Report) -> list[ControlRow]:
    """The result first, then every control with its distance from it; empty without controls."""
    if not report.baselines:
        return []
    result, decides = report.after, report.objective.decides
    rows = [
        ControlRow(
            "result",
            "",
            MISSING,
            formatting.loss(result.loss),
            metric.shown(decides, result.deciding, result.accuracy),
            MISSING,
        )
    ]
    for control in report.baselines:
        rows.append(
            ControlRow(
                control.kind,
                _MEANING.get(control.kind, ""),
                f"{control.epochs:,}",
                formatting.loss(control.loss),
                metric.shown(decides, control.metric, control.accuracy),
                _difference(
                    decides,
                    metric.height(decides, control.metric, control.accuracy),
                    metric.height(decides, result.deciding, result.accuracy),
                ),
            )
        )
    return rows


def _difference(decides: MetricReport, control: float | None, result: float | None) -> str:
    if control is None or result is None:
        return MISSING
    if decides.fraction:
        return f"{(control - result) * 100:+.2f} points"
    return f"{control - result:+.4g}"
