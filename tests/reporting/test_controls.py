"""Controls in the report's page."""

from __future__ import annotations

from secateur.report import Accuracy, BaselineReport

from reporting.controls import control_rows
from reporting.html import render
from tests.reporting.samples import small_report


def control(kind: str, correct: int | None) -> BaselineReport:
    accuracy = None if correct is None else Accuracy(correct=correct, total=400, top1=correct / 400)
    return BaselineReport(
        kind=kind, epochs=1200, loss=0.25, accuracy=accuracy, drawn_by_distribution=[]
    )


def test_distances_from_the_result_by_hand() -> None:
    report = small_report(baselines=[control("random_pruning", 340), control("scratch_b", None)])
    report.after.accuracy = Accuracy(correct=360, total=400, top1=0.9)
    result, random, scratch = control_rows(report)
    assert (result.name, result.accuracy) == ("result", "360 / 400 = 90.00 %")
    assert (random.epochs, random.accuracy) == ("1,200", "340 / 400 = 85.00 %")
    assert random.difference == "-5.00 points"
    assert (scratch.accuracy, scratch.difference) == (result.epochs, result.difference)
    page = render(report)
    assert "<h2>Controls</h2>" in page
    assert "drawn by lot" in page
    assert "-5.00 points" in page


def test_no_controls_no_section() -> None:
    assert control_rows(small_report()) == []
    assert "<h2>Controls</h2>" not in render(small_report())
