"""Stage table, accuracy against size and weight distributions on the page."""

from __future__ import annotations

import re

import pytest
from secateur.report import Report

from reporting.curve import curve_rows, missing_points
from reporting.html import render
from reporting.stage_table import stage_rows
from reporting.weight_plots import weight_rows
from tests.reporting.samples import HOSTILE, big_report, small_report, staged_report
from tests.reporting.test_html import Page


@pytest.fixture(scope="module")
def page() -> str:
    return render(staged_report())


def test_rows_of_the_stage_table() -> None:
    original, masked, permanent, trained = stage_rows(staged_report())[:4]
    assert original.state == "original"
    assert (original.correct, original.accuracy) == ("357 / 360", "99.17 %")
    assert (masked.state, masked.file) == ("masked: masks beside weights", "503 kB")
    assert (masked.memory, masked.evaluated, masked.took) == ("484 kB", "13 ms", "36 ms")
    assert (masked.step, masked.correct, masked.accuracy) == (
        permanent.step,
        "346 / 360",
        "96.11 %",
    )
    assert (permanent.state, permanent.removed, permanent.took) == (
        "made permanent",
        "38",
        "182 ms",
    )
    assert trained.state == "fine-tuned"
    assert trained.evaluated == "–", "older steps were not timed"  # noqa: RUF001


def test_the_page_has_the_stage_table(page: str) -> None:
    text = Page(page).text
    assert "masked: masks beside weights 503 kB 484 kB" in text
    assert "Masks beside their weights make a file bigger" in text
    assert "Masks beside" not in Page(render(small_report())).text


def test_the_curve_has_numbers_and_says_what_is_missing(page: str) -> None:
    rows = curve_rows(staged_report().curve)
    assert [(row.kept, row.ratio) for row in rows] == [
        ("50.0 %", "2.00×"), ("25.0 %", "4.00×"), ("12.5 %", "8.00×"),  # noqa: RUF001
    ]  # fmt: skip
    assert (rows[0].pruned, rows[0].retrained) == ("340 / 360 = 94.44 %", "356 / 360 = 98.89 %")
    assert rows[2].retrained == "–"  # noqa: RUF001
    text = Page(page).text
    assert "without a point after it: prune round 3 of 3." in text
    plot = page[page.index('aria-label="Top-1 accuracy against') :].split("</svg>", maxsplit=1)[0]
    assert "after pruning" in plot
    assert "after training" in plot


def test_missing_points_in_words() -> None:
    points = staged_report().curve
    assert missing_points(points[:2]) == ""
    assert "no curve after training" in missing_points(points[2:])
    blind = [point.model_copy(update={"pruned": None, "retrained": None}) for point in points]
    assert "no validation split" in missing_points(blind)
    text = Page(render(small_report(curve=blind))).text
    assert "no validation split" in text
    assert "prune round 2 of 3" in text


def test_one_round_is_no_curve() -> None:
    text = Page(render(small_report(curve=staged_report().curve[:1]))).text
    assert "Accuracy against size" not in text


def test_distributions_are_drawn_and_zeros_are_told(page: str) -> None:
    weights = staged_report().weights
    assert weights is not None
    rows = weight_rows(weights)
    assert [row.state for row in rows] == ["original", "after pruning", "after retraining"]
    drawn = sum(weights.states[1].total.counts)
    assert rows[1].zeros == "10,600"
    assert rows[1].share == f"{10_600 / (drawn + 10_600) * 100:.1f} %"
    assert (rows[0].zeros, rows[0].share) == ("0", "0.0 %")
    text = Page(page).text
    assert "3 smaller ones count in the total only" in text
    assert "conv1.weight" in text
    assert HOSTILE not in page


def test_few_survivors_are_drawn_on_a_logarithmic_axis(page: str) -> None:
    report = staged_report()
    assert report.weights is not None
    assert "(logarithmic)" not in page[page.index('aria-label="Histogram of all') :]
    *others, last = report.weights.states
    few = last.total.model_copy(update={"counts": [1] * 32})
    states = [*others, last.model_copy(update={"total": few})]
    dwarfed = report.model_copy(
        update={"weights": report.weights.model_copy(update={"states": states})}
    )
    html = render(dwarfed)
    assert "(logarithmic)" in html[html.index('aria-label="Histogram of all') :]


def test_rounds_of_one_size_share_a_tick() -> None:
    points = staged_report().curve
    close = [points[0], points[0].model_copy(update={"label": "again"})]
    html = render(small_report(curve=close))
    plot = html[html.index('aria-label="Top-1 accuracy against') :].split("</svg>", maxsplit=1)[0]
    assert plot.count(">50.0 %<") == 1


def test_layers_have_their_ratio(page: str) -> None:
    assert re.search(r"conv2\.weight.*?4\.00×", page, flags=re.DOTALL)  # noqa: RUF001
    assert "The theoretical speed-up, MACs before over MACs after, is 4.00×" in page  # noqa: RUF001


def test_every_plot_is_labelled_and_ids_are_unique(page: str) -> None:
    parsed = Page(page)
    labels = [value for name, value in parsed.attributes if name == "aria-label"]
    assert len(labels) == page.count("<svg") == 5
    assert len(parsed.ids) == len(set(parsed.ids))
    assert set(parsed.references) <= set(parsed.ids)
    assert "<script" not in page
    heads = re.findall(r"<th(?![^>]*scope=)[ >]", page)
    assert heads == []


def test_reports_without_the_newer_fields_stay_readable() -> None:
    plain = small_report().model_dump(mode="json")
    for state in (plain["before"], plain["after"], *plain["stages"]):
        for name in ("memory_bytes", "evaluation_ms", "state", "masked"):
            state.pop(name, None)
    for row in plain["layers"]:
        del row["compression_ratio"]
    del plain["weights"], plain["curve"]
    old = Report.model_validate(plain)
    assert old == small_report()
    assert "How the values of all weights are distributed" in Page(render(old)).text


def test_a_page_of_many_layers_stays_small() -> None:
    weights = staged_report().weights
    assert weights is not None
    many = weights.model_copy(
        update={
            "states": [
                state.model_copy(
                    update={
                        "layers": [
                            state.layers[0].model_copy(update={"name": f"layer.{index}.weight"})
                            for index in range(32)
                        ]
                    }
                )
                for state in weights.states
            ]
        }
    )
    without = len(render(big_report()).encode())
    html = render(big_report().model_copy(update={"weights": many}))
    assert len(html.encode()) - without < 400_000
