"""Training curves in the report's page."""

from __future__ import annotations

import re
from typing import Any

from secateur.report_training import TrainingCurves, TrainingEpoch, TrainingPace, TrainingPoint

from reporting.formatting import MISSING
from reporting.html import render
from reporting.training import MOST_DRAWN, point_rows, run_rows, training_plot
from tests.reporting.samples import small_report


def curves(**changes: Any) -> TrainingCurves:
    points = [
        TrainingPoint(step=5 * n, loss=2.5 / n, lr=0.1 / n, gradient_norm=1.5) for n in (1, 2, 3, 4)
    ]
    epochs = [
        TrainingEpoch(
            epoch=n,
            values={
                "train/loss": 1.0 / n,
                "validation/loss": 1.25 / n,
                "validation/accuracy": 0.9125,
            },
        )
        for n in (1, 2)
    ]
    pace = TrainingPace(
        memory="process_resident",
        steps=[5, 10, 20],
        samples_per_second=[100.0, 1234.0, 1300.0],
        memory_bytes=[400_000_000, 600_000_000, 500_000_000],
    )
    fields = {"stage_index": 1, "label": "finetune", "steps": 20, "stride": 5}
    return TrainingCurves.model_validate(
        fields | {"points": points, "epochs": epochs, "pace": pace} | changes
    )


def test_a_run_has_a_row_a_plot_and_its_points() -> None:
    page = render(small_report(training=[curves()]))
    (row,) = run_rows([curves()])
    assert (row.name, row.steps, row.epochs, row.metric) == ("finetune", "20", "2", "91.25 %")
    assert (row.speed, row.memory) == ("1,234", "600 MB")
    rows = point_rows(curves())
    assert [(row.step, row.lr, row.speed) for row in rows] == [
        ("5", "0.1", "100"),
        ("10", "0.05", "1,234"),
        ("15", "0.0333", MISSING),
        ("20", "0.025", "1,300"),
    ]
    assert "<h2>Training</h2>" in page
    assert "finetune: 4 points" in page
    assert re.search(r"<svg[^>]*Training and validation loss", page)


def test_of_many_runs_the_last_are_drawn() -> None:
    runs = [curves(label=f"finetune after round {n} of 9") for n in range(1, 10)]
    page = render(small_report(training=runs))
    assert page.count(": 4 points</summary>") == MOST_DRAWN
    assert page.count("finetune after round 1 of 9") == 1  # in the table of all
    assert f"the last {MOST_DRAWN} runs" in page


def test_a_run_of_one_step_is_not_drawn() -> None:
    short = curves(points=[TrainingPoint(step=1, loss=1.0, lr=0.1)], epochs=[])
    assert training_plot([short]) is None
    assert "<h2>Training</h2>" in render(small_report(training=[short]))


def test_an_older_report_has_no_training() -> None:
    assert "<h2>Training</h2>" not in render(small_report())
