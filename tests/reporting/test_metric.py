"""Reports of jobs that are judged by something else than accuracy."""

from __future__ import annotations

from typing import Any

import pytest
from secateur.cli.tables import before_after
from secateur.report import Measurement, MetricReport, ObjectiveReport, Report
from secateur.report_base import CLASSIFICATION
from secateur.report_score import ScoreReport

from reporting import metric, score_html, tables
from reporting.html import render
from reporting.sensitivity_plot import sensitivity_figure
from service.example_score import SCORE_REPORT
from tests.reporting.samples import small_report

PERPLEXITY = MetricReport(
    name="perplexity", title="perplexity", higher_is_better=False, fraction=False
)
MIOU = MetricReport(name="miou", title="mean IoU", higher_is_better=True, fraction=True)
LANGUAGE = ObjectiveReport(loss="next_token", metrics=[PERPLEXITY])


def judged(measured: Any, **metrics: float) -> Any:
    return measured.model_copy(update={"accuracy": None, "metrics": metrics})


def language_report() -> Report:
    """A small report without any accuracy."""
    report = small_report()
    return report.model_copy(
        update={
            "objective": LANGUAGE,
            "before": judged(report.before, perplexity=12.1),
            "after": judged(report.after, perplexity=12.64),
            "stages": [judged(stage, perplexity=12.9) for stage in report.stages],
            "curve": [
                point.model_copy(update={"pruned": None, "retrained": None, "pruned_metric": 14.25})
                for point in report.curve
            ],
        }
    )


def test_a_value_as_a_reader_wants_it() -> None:
    assert metric.shown(PERPLEXITY, 12.134, None) == "12.13"
    assert metric.shown(MIOU, 0.6123, None) == "61.23 %"
    assert metric.shown(MIOU, None, None) == "–"  # noqa: RUF001
    assert metric.difference(MIOU, 0.6, 0.5) == "−10.00 points"  # noqa: RUF001
    assert metric.difference(PERPLEXITY, 10, 11) == "+10.0 %"
    assert metric.title(MIOU) == "Mean IoU"


@pytest.mark.parametrize(
    ("kind", "before", "after", "better"),
    [
        (PERPLEXITY, 12, 11, True), (PERPLEXITY, 12, 12.06, None), (PERPLEXITY, 12, 13, False),
        (MIOU, 0.5, 0.6, True), (MIOU, 0.5, 0.495, None), (MIOU, 0.5, 0.4, False),
    ],
)  # fmt: skip
def test_a_direction_decides_what_is_better(
    kind: MetricReport, before: float, after: float, better: bool | None
) -> None:
    assert metric.better(kind, before, after, lost=0.01) is better


def test_the_page_of_a_language_model_makes_no_claim_about_accuracy() -> None:
    page = render(language_report())
    assert "ccuracy" not in page.split("<h2>Provenance")[0].split("<pre")[0]
    assert "Perplexity" in page
    assert "12.1 → 12.64" in page
    tile = tables.tiles(language_report())[-1]
    assert (tile.name, tile.value, tile.unit, tile.better) == ("Perplexity", "+4.5", "%", False)
    rows = {row.name: row for row in tables.comparison(*measured(), LANGUAGE)}
    assert (rows["Perplexity"].before, rows["Perplexity"].after) == ("12.1", "12.64")
    assert "Top-1 accuracy" not in rows


def measured() -> tuple[Measurement, Measurement]:
    report = language_report()
    return report.before, report.after


def test_the_command_line_shows_the_metric() -> None:
    table = before_after(language_report())
    names = [str(cell) for cell in table.columns[0].cells]
    assert "validation perplexity" in names
    assert "validation top-1" not in names
    place = names.index("validation perplexity")
    assert [str(list(column.cells)[place]) for column in table.columns[1:]] == [
        "12.1", "12.64", "+4.5 %",
    ]  # fmt: skip


def test_a_scan_by_the_metric_is_drawn_and_written() -> None:
    data = ScoreReport.model_validate(SCORE_REPORT).model_dump()
    for scan in data["scans"]:
        scan.update(measure="metric", metric=12.1)
        for layer in scan["layers"]:
            for point in layer["points"]:
                point["metric"] = 13.0
    report = ScoreReport.model_validate(data | {"objective": LANGUAGE.model_dump()})
    page = score_html.render(report)
    assert "Perplexity by" in page
    assert "13.0000" in page
    assert "perplexity" in sensitivity_figure(report)


def test_older_reports_are_of_classification() -> None:
    report = small_report()
    assert report.objective == CLASSIFICATION
    assert report.before.deciding == report.before.accuracy.top1
