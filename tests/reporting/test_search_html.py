"""The page and the plot of a search: complete, escaped, self-contained, the same every time."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from secateur.report import Provenance
from secateur.report_search import Objective, SearchReport, TrialReport

from reporting.front_plot import front_figure
from reporting.search_html import render
from tests.reporting.samples import HOSTILE
from tests.reporting.test_html import Page

PATH = "stages.0.allocation.amount"
LAYER = f"stages.0.allocation.layers.{HOSTILE}"
PROVENANCE = Provenance(
    recipe={"version": 1, "stages": [{"stage": "prune", "exclude": [HOSTILE]}]},
    seed=7,
    model_sha256="3f1c" * 16,
    dataset_sha256="5a5a" * 16,
    result_sha256="7b7b" * 16,
    versions={"torch": "2.13.0"},
    device="cpu",
    threads=2,
    deterministic=True,
)


def trial(number: int, accuracy: float, macs: float, **changes: Any) -> TrialReport:
    fields: dict[str, Any] = {
        "number": number,
        "job_id": f"job_{number}",
        "state": "succeeded",
        "parameters": {PATH: 0.25 + number / 10, LAYER: [None, HOSTILE]},
        "values": {"accuracy": accuracy, "macs": macs, "latency_ms": 0.25},
    }
    return TrialReport(**(fields | changes))


def report(**changes: Any) -> SearchReport:
    objectives = [
        Objective(name="accuracy", direction="maximize"),
        Objective(name="macs", direction="minimize"),
    ]
    fields: dict[str, Any] = {
        "summary": f"4 trials {HOSTILE}",
        "warnings": [HOSTILE],
        "objectives": objectives,
        "sampler": "tpe",
        "before": {"accuracy": 0.975, "macs": 416_520},
        "trials": [
            trial(0, 0.97, 300_000),
            trial(1, 0.96, 122_906),
            trial(2, 0.5, 350_000, state="infeasible", reason=HOSTILE),
            trial(3, 0, 0, state="failed", values={}, reason="It would not train."),
        ],
        "front": [0, 1],
        "best": {"accuracy": 0, "macs": 1},
        "knee": 1,
        "chosen": 1,
        "chosen_by": "knee",
        "recipe": {"stages": [], "search": {"space": {PATH: [0.5], LAYER: [1]}, "seed": 3}},
        "provenance": PROVENANCE,
    }
    return SearchReport(**(fields | changes))


def single() -> SearchReport:
    return report(
        objectives=[Objective(name="latency_ms", direction="minimize")],
        front=[0], best={"latency_ms": 0}, knee=None, chosen=0, chosen_by="latency_ms",
    )  # fmt: skip


def test_everything_is_on_the_page() -> None:
    page = Page(render(report()))
    for words in (
        "97.00 %", "122,906", "416,520", "knee, result", "infeasible", "It would not train.",
        "job_3", "Wanted: highest top-1 accuracy, lowest MACs.", "0.35", "seed 3",
        "Best top-1 accuracy: trial 0; Best MACs: trial 1", "torch 2.13.0",
    ):  # fmt: skip
        assert words in page.text, words


def test_nothing_from_outside_gets_out_of_its_place() -> None:
    for one in (report(), single()):
        text = render(one)
        assert "<script" not in text
        assert "&lt;script" in text
        assert "49" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL).split("<main>")[1]
        for address in re.findall(r'(?:src|href)="([^"]*)"', text):
            assert address.startswith("#")


@pytest.mark.parametrize("made", [report, single])
def test_the_plot_is_a_file_of_its_own(made: Any) -> None:
    figure = front_figure(made())
    assert figure is not None
    assert figure == front_figure(made())
    root = ElementTree.fromstring(figure.encode())  # noqa: S314 - drawn here
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = {text.strip() for text in root.itertext()}
    assert "upload" in words or made is single
    assert "infeasible" in words


def test_of_three_objectives_two_panels() -> None:
    objectives = [*report().objectives, Objective(name="latency_ms", direction="minimize")]
    figure = front_figure(report(objectives=objectives))
    assert figure is not None
    assert "latency p50, ms" in figure
    assert "MACs" in figure


def test_a_search_without_a_result() -> None:
    lost = [trial(0, 0, 0, state="failed", values={}, reason="It would not train.")]
    nothing = report(
        trials=lost, front=[], best={}, knee=None, chosen=None, provenance=None, before={}
    )
    assert front_figure(nothing) is None
    page = Page(render(nothing))
    assert "There is no model" in page.text
    assert "It would not train." in page.text
    assert "Provenance" not in page.text
