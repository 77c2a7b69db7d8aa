"""The HTML report: complete, self-contained, escaped, the same every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import matplotlib as mpl
import pytest
from secateur.report import Certificate, Histogram, Measurement

from reporting.html import render
from reporting.svg import _VARIABLES
from tests.reporting.samples import HOSTILE, big_report, small_report

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect", "circle", "line"}


class Page(HTMLParser):
    """Collects tags, ids, attributes and text, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.append((name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            self.references += re.findall(r"url\(#([^)]+)\)", value or "")
            if name in {"href", "xlink:href"}:
                self.references.append((value or "").removeprefix("#"))


@pytest.fixture(scope="module")
def small() -> str:
    return render(small_report())


@pytest.fixture(scope="module")
def big() -> str:
    return render(big_report())


def test_shows_every_number_of_the_comparison(small: str) -> None:
    text = Page(small).text
    for shown in (
        "263,000",
        "77,000",
        "61,706",
        "15,426",
        "416,520",
        "104,130",
        "357 / 360 = 99.17 %",
        "356 / 360 = 98.89 %",
        "−0.28 points",  # noqa: RUF001
        "−75.0 %",  # noqa: RUF001
        "3.42×",  # noqa: RUF001
    ):
        assert shown in text


def test_shows_steps_layers_recipe_and_provenance(small: str) -> None:
    text = Page(small).text
    for shown in (
        "fine-tune after round 3 of 4",
        "2.6 s",
        "conv2.weight",
        "50 × 20 × 5 × 5 → 25 × 10 × 5 × 5",  # noqa: RUF001
        "the model returns it",
        "criterion: l1_norm",
        "{max_accuracy_drop: 0.01}",
        "3f1c" * 16,
        "torch 2.13.0",
    ):
        assert shown in text


@pytest.mark.parametrize("report", ["small", "big"])
def test_is_one_file_that_fetches_and_runs_nothing(
    report: str, request: pytest.FixtureRequest
) -> None:
    html: str = request.getfixturevalue(report)
    page = Page(html)
    assert {"script", "link", "img", "iframe", "object", "embed", "form"}.isdisjoint(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if not name.startswith("xmlns"):
            assert "//" not in value
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert len(html.encode()) < 1_500_000


def test_hostile_names_are_text_everywhere(big: str) -> None:
    assert "<script" not in big
    assert "49" not in re.findall(r"\$x_1\$ (\S+)", Page(big).text)
    assert Page(big).text.count(HOSTILE) > 400


@pytest.mark.parametrize("report", ["small", "big"])
def test_ids_are_unique_and_references_resolve(report: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(report))
    assert len(page.ids) == len(set(page.ids))
    assert page.references, "the plots refer to their clip paths"
    assert set(page.references) <= set(page.ids)


def test_same_report_same_bytes_whatever_matplotlib_is_set_to(small: str) -> None:
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "other"}):
        assert render(small_report()) == small


def test_plots_use_the_colours_of_the_page(small: str) -> None:
    svg = "".join(re.findall(r"<svg.*?</svg>", small, flags=re.DOTALL))
    assert "var(--after)" in svg
    assert not any(placeholder in svg for placeholder in _VARIABLES)
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", svg)) == set()


def test_every_plot_says_what_it_shows(small: str) -> None:
    labels = [value for name, value in Page(small).attributes if name == "aria-label"]
    assert len(labels) == small.count("<svg") == 3
    assert all(len(label) > 30 for label in labels)


def test_long_tables_are_folded_under_a_plot(big: str, small: str) -> None:
    assert "All 400 weight tensors" in big
    assert "All 60 steps" in big
    assert "<details" not in small


def test_warnings_come_before_the_numbers(big: str) -> None:
    text = Page(big).text
    warning = text.index("slower than the original (0.83 times)")
    assert warning < text.index("File size")
    assert "A constraint of the recipe is not met." in text
    assert "1.20× slower" in text  # noqa: RUF001


def test_clean_result_has_no_alert(small: str) -> None:
    assert 'role="alert"' not in small


def test_certificate_says_which_kind_and_who_mixed(small: str, big: str) -> None:
    assert "Passed, exact" in Page(small).text
    approximate = Page(big).text
    assert "Passed, approximate" in approximate
    assert "24 operators" in approximate
    assert "encoder.layer.23.norm (aten::layer_norm)" in approximate
    assert "3.1e-02" in approximate


def test_failed_certificate_is_red_and_says_not_to_use_the_model() -> None:
    certificate = Certificate(
        passed=False,
        kind="exact",
        max_relative_error=0.4,
        mixed_by=[],
        batch_sizes=[1],
        reloaded_in_fresh_process=False,
    )
    html = render(small_report(certificate=certificate))
    assert 'class="certificate bad"' in html
    assert "Do not use this model" in html
    assert "Passed" not in Page(html).text


def test_frozen_channels_are_added_up_by_reason(big: str) -> None:
    text = Page(big).text
    assert text.count("153,600") == 2, "200 layers of 768 channels for each of two operators"
    assert "and 194 more" in text


def test_one_stalled_run_does_not_flatten_the_medians() -> None:
    calm = small_report()
    rows = [row.model_copy(update={"p99": 500.0}) for row in calm.after.latency_ms]
    stalled = small_report(after=calm.after.model_copy(update={"latency_ms": rows}))
    html = render(stalled)

    plot = html[html.index('aria-label="Latency') :]
    plot = plot[: plot.index("</svg>")]
    ticks = [float(text) for text in re.findall(r">([\d.]+)</text>", plot)]
    assert max(ticks) < 2.5 * 1.87, "the axis ends at 2.5 medians of the slower model"
    assert "500.0" in Page(html).text, "the table has the number"


def test_zeros_of_element_pruning_make_the_histogram_logarithmic() -> None:
    calm = small_report()
    counts = list(calm.histogram_after.counts)
    counts[30] = 40_000
    spiked = calm.histogram_after.model_copy(update={"counts": counts})
    text = Page(render(small_report(histogram_after=spiked))).text

    assert "weights (logarithmic)" in text
    assert "10.0 k" in text
    assert "$" not in text, "no formula source in place of a number"
    assert "logarithmic" not in Page(render(calm)).text


def test_report_without_latency_dataset_or_weights_still_renders() -> None:
    bare = small_report().before.model_copy(
        update={"latency_ms": [], "accuracy": None, "loss": None}
    )
    empty = Histogram(edges=[0.0, 1.0], counts=[0])
    html = render(
        small_report(
            before=bare,
            after=Measurement.model_validate(bare.model_dump()),
            stages=[],
            layers=[],
            frozen=[],
            histogram_before=empty,
            histogram_after=empty,
        )
    )
    text = Page(html).text
    assert "<svg" not in html
    assert "None: every channel could have been pruned." in text
    assert "0.0 %" in text
