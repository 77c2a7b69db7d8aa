"""The page and the plot of a score job: complete, escaped, self-contained, the same every time."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest
from secateur.report import Accuracy, Frozen, Provenance
from secateur.report_score import LayerScan, Scan, ScanPoint, ScoreReport

from reporting.score_html import render
from reporting.sensitivity_plot import MOST_PANELS, drawn_layers, sensitivity_figure
from tests.reporting.samples import HOSTILE
from tests.reporting.test_html import Page

RATIOS = [0.25, 0.5, 0.75]
PROVENANCE = Provenance(
    recipe={"version": 1, "stages": [{"stage": "score", "measure": "accuracy"}]},
    seed=7,
    model_sha256="3f1c" * 16,
    dataset_sha256="5a5a" * 16,
    result_sha256="7b7b" * 16,
    versions={"torch": "2.13.0"},
    device="cpu",
    threads=2,
    deterministic=True,
)


def accuracy(correct):
    return Accuracy(correct=correct, total=200, top1=correct / 200)


def layer(name, sensitivity=0.1, *, members=(), points=((25, 190), (50, 160), (75, 100))):
    return LayerScan(
        name=name,
        members=[name, *members],
        units=100,
        removable=99,
        sensitivity=sensitivity,
        points=[
            ScanPoint(
                ratio=ratio,
                removed=removed,
                drift=None,
                loss=0.5,
                accuracy=None if correct is None else accuracy(correct),
                elapsed_ms=3.0,
            )
            for ratio, (removed, correct) in zip(RATIOS, points, strict=True)
        ],
    )


def scan(*layers, index=0, **changes):
    facts = {
        "stage_index": index, "granularity": "channel", "criterion": "l1_norm",
        "measure": "accuracy", "split": "validation", "samples": 200, "ratios": RATIOS,
        "loss": 0.25, "accuracy": accuracy(195), "layers": list(layers), "frozen": [],
        "elapsed_ms": 1234.0,
    }  # fmt: skip
    return Scan.model_validate(facts | changes)


def report(*scans, warnings=()):
    return ScoreReport(
        summary="2 layers scanned", warnings=list(warnings), scans=list(scans),
        provenance=PROVENANCE,
    )  # fmt: skip


def test_the_page_has_every_number_and_says_that_nothing_is_certified():
    frozen = Frozen(layer="head", op="output", reason="the model returns it", channels=10)
    html = render(
        report(
            scan(layer("conv1", 0.234, members=["conv2"]), layer("fc", None), frozen=[frozen]),
            warnings=["a ratio rounds to nothing"],
        )
    )
    text = Page(html).text
    for shown in (
        "There is no certificate: a score job makes no model",
        "a ratio rounds to nothing",
        "200 samples of the validation split",
        "The whole model has 97.50 %",
        "25.0 % 50.0 % 75.0 % Mean accuracy lost",
        "conv1 with conv2 100 99 95.00 % 25 gone 80.00 % 50 gone 50.00 % 75 gone +23.40 points",
        "the model returns it",
        "measure: accuracy",
        "7b7b" * 16,
    ):
        assert shown in text, shown
    assert "Passed" not in text


def test_a_page_of_drifts_has_no_whole_model():
    points = [ScanPoint(ratio=r, removed=1, drift=d, elapsed_ms=1.0) for r, d in ((0.25, 0.125),)]
    one = layer("conv1").model_copy(update={"points": points, "sensitivity": 0.125})
    drifts = scan(
        one, measure="drift", split="example", samples=1, ratios=[0.25], loss=None, accuracy=None
    )
    text = Page(render(report(drifts))).text
    assert "Measured on the example (1 sample)" in text
    assert "The whole model has" not in text
    assert "0.1250 1 gone 0.1250" in text


@pytest.mark.parametrize("make", [render, sensitivity_figure])
def test_hostile_names_are_text(make):
    document = make(report(scan(layer(HOSTILE), layer("b", members=[HOSTILE]))))
    assert "<script" not in document
    assert "{{ 7*7 }}" in document  # no template ran


def test_the_page_is_one_file_that_fetches_nothing_with_ids_of_its_own():
    html = render(report(scan(layer("a"), layer("b")), scan(layer("c"), index=1)))
    page = Page(html)
    assert {"script", "link", "img", "iframe", "object", "embed", "form"}.isdisjoint(page.tags)
    assert len(page.ids) == len(set(page.ids))
    assert page.references
    assert set(page.references) <= set(page.ids)
    assert html.count("<svg") == 2
    assert render(report(scan(layer("a"), layer("b")), scan(layer("c"), index=1))) == html


def test_the_plot_is_a_document_with_colours_of_its_own():
    text = sensitivity_figure(report(scan(layer("conv1"), layer("fc")), scan(layer("c"), index=1)))
    root = ElementTree.fromstring(text.encode())  # noqa: S314 - our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    style = root.find("{http://www.w3.org/2000/svg}style")
    assert style is not None
    assert style.text is not None
    defined = set(re.findall(r"(--\w+):", style.text))
    assert set(re.findall(r"var\((--\w+)\)", text)) <= defined
    assert "prefers-color-scheme: dark" in style.text
    words = " ".join(root.itertext())
    for shown in ("conv1", "fc", "top-1 accuracy", "removed, by l1_norm"):
        assert shown in words


def curves(text):
    """The vertices of every curve that the plot draws, in points of the page."""
    paths = re.findall(r'<path d="([^"]+)" clip-path[^>]*style="[^"]*var\(--after\)', text)
    return [
        [tuple(map(float, point)) for point in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
        for path in paths
    ]


def test_a_curve_starts_at_the_whole_model_and_falls_with_what_is_gone():
    (curve,) = curves(sensitivity_figure(report(scan(layer("conv1")))))
    across = [x for x, _ in curve]
    # Nothing, 25, 50 and 75 of 100; the ratios' own places, evenly.
    steps = [after - before for before, after in itertools.pairwise(across)]
    assert steps == pytest.approx([steps[0]] * 3, rel=1e-3)
    # 97.5 %, 95 %, 80 % and 50 %: down the page, by 2.5 : 15 : 30.
    falls = [after[1] - before[1] for before, after in itertools.pairwise(curve)]
    assert falls[1] / falls[0] == pytest.approx(6, rel=1e-2)
    assert falls[2] / falls[1] == pytest.approx(2, rel=1e-2)


def test_points_without_a_value_or_without_a_removal_are_not_drawn():
    broken = layer("conv1", points=((0, 195), (50, None), (75, 100)))
    (curve,) = curves(sensitivity_figure(report(scan(broken))))
    assert len(curve) == 2


def test_of_many_layers_the_most_sensitive_are_drawn():
    layers = [layer(f"l{number}", number / 1000) for number in range(MOST_PANELS + 5)]
    layers[0] = layer("l0", None)
    many = scan(*layers)
    drawn = [one.name for one in drawn_layers(many)]
    assert drawn == ["l0", *(f"l{number}" for number in range(6, MOST_PANELS + 5))]
    assert "5 more are in the table" in Page(render(report(many))).text
