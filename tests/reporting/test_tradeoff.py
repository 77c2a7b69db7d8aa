"""Trade-off curves in the report's page."""

from __future__ import annotations

from typing import Any

from secateur.report import Accuracy
from secateur.report_base import CLASSIFICATION
from secateur.report_tradeoff import TradeOffCurve, TradeOffPoint, TradeOffReport

from reporting.html import render
from reporting.tradeoff import curve_name, tradeoff_plot, tradeoff_rows
from tests.reporting.samples import small_report


def right(correct: int) -> Accuracy:
    return Accuracy(correct=correct, total=400, top1=correct / 400)


def curve(counts: list[tuple[int, int]], **changes: Any) -> TradeOffCurve:
    points = [
        TradeOffPoint(
            ratio=0.5 + 0.4 * number,
            kept_fraction=0.51 - 0.4 * number,
            pruned=right(pruned),
            pruned_loss=0.5,
            retrained=right(retrained),
            retrained_loss=0.25,
        )
        for number, (pruned, retrained) in enumerate(counts)
    ]
    fields = {"penalty": "l1", "strength": 0.0001, "criterion": "l1_norm", "iterative": False}
    return TradeOffCurve.model_validate(
        {**fields, "dense": right(390), "points": points, **changes}
    )


def test_numbers_and_names() -> None:
    lines = [
        curve([(380, 384), (200, 370)]),
        curve([(372, 388), (120, 380)], penalty="l2", strength=0.0005, iterative=True),
        curve([(1, 2)], penalty="none", strength=None, criterion="l2_norm"),
    ]
    report = TradeOffReport(granularity="element", curves=lines)
    assert [curve_name(line) for line in lines] == [
        "L1 0.0001",
        "L2 0.0005, iterative",
        "no penalty, by l2_norm",
    ]
    rows = tradeoff_rows(report, CLASSIFICATION.decides)
    assert len(rows) == 5
    assert (rows[1].line, rows[1].pruned, rows[1].retrained) == (
        "L1 0.0001",
        "200 / 400 = 50.00 %",
        "370 / 400 = 92.50 %",
    )
    assert rows[1].dense == "390 / 400 = 97.50 %"
    page = render(small_report(tradeoff=report))
    assert "with and without retraining" in page
    assert "L2 0.0005, iterative, without retraining" in page  # in the legend
    assert "380 / 400 = 95.00 %" in page


def test_one_ratio_is_a_table_and_no_ratios_no_section() -> None:
    report = TradeOffReport(granularity="channel", curves=[curve([(300, 390)])])
    assert tradeoff_plot(report, CLASSIFICATION.decides) is None
    assert "300 / 400 = 75.00 %" in render(small_report(tradeoff=report))
    assert "with and without retraining" not in render(small_report())
