"""The controls beside the result: the same architecture from new weights, or a random choice."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.report import Accuracy, Report

from reporting import formatting
from reporting.formatting import MISSING, percent

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
    result = report.after
    rows = [
        ControlRow(
            "result", "", MISSING, formatting.loss(result.loss), _shown(result.accuracy), MISSING
        )
    ]
    for control in report.baselines:
        rows.append(
            ControlRow(
                control.kind,
                _MEANING.get(control.kind, ""),
                f"{control.epochs:,}",
                formatting.loss(control.loss),
                _shown(control.accuracy),
                _difference(control.accuracy, result.accuracy),
            )
        )
    return rows


def _shown(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return MISSING
    return f"{accuracy.correct:,} / {accuracy.total:,} = {percent(accuracy.top1, 2)}"


def _difference(control: Accuracy | None, result: Accuracy | None) -> str:
    if control is None or result is None:
        return MISSING
    return f"{(control.top1 - result.top1) * 100:+.2f} points"
