"""The results of a search as a folder: its report, and the model with the report of its own."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from secateur.cli.search_tables import trials_table
from secateur.client import Secateur
from secateur.errors import SecateurError
from secateur.report_search import SearchReport
from secateur.results import save_results

from service.example_search import SEARCH_REPORT
from tests.client.faulty_server import answer, serving
from tests.client.test_results import JOB, content, listing

KINDS = ("report_json", "report_html", "recipe", "model", "plot")
SEARCH = JOB.model_copy(update={"type": "search", "result": {"chosen": {"job_id": "job_2"}}})


def test_the_report_of_the_result_lies_beside_that_of_the_search(tmp_path: Path) -> None:
    trial = JOB.model_copy(update={"id": "job_2"}).model_dump(mode="json")
    answers = [
        answer(trial), listing("model", "report_json", "report_html"),
        content("report_json"), content("report_html"),
        listing(*KINDS), *(content(kind) for kind in KINDS),
    ]  # fmt: skip
    with serving(*answers) as server:
        files = save_results(Secateur(server.url, "key"), SEARCH, tmp_path / "out")
        assert [seen.path.partition("?")[0] for seen in server.requests][:2] == [
            "/v1/jobs/job_2", "/v1/jobs/job_2/artifacts",
        ]  # fmt: skip
    assert {path.name: path.read_text() for path in files} == {
        "compact.pt": "model",
        "front.svg": "plot",
        "recipe.yaml": "recipe",
        "report.html": "report_html",
        "report.json": "report_json",
        "result-report.html": "report_html",
        "result-report.json": "report_json",
    }


def test_without_its_plot_it_is_not_whole(tmp_path: Path) -> None:
    job = SEARCH.model_copy(update={"result": None})
    kinds = [kind for kind in KINDS if kind != "plot"]
    with (
        serving(listing(*kinds), *(content(kind) for kind in kinds)) as server,
        pytest.raises(SecateurError, match=r"has no front\.svg, result-report"),
    ):
        save_results(Secateur(server.url, "key"), job, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_table_on_the_command_line() -> None:
    console = Console(width=120, file=StringIO(), force_terminal=False)
    report = SearchReport.model_validate(SEARCH_REPORT)
    console.print(trials_table(report))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines == [
        ["trial", "0", "amount", "0", "criterion", "accuracy", "macs"],
        ["0", "result", "0.37454", "l1_norm", "98.05", "%", "205,310"],
        ["1", "front", "0.59866", "geometric_median", "97.49", "%", "122,906"],
        ["2", "infeasible", "0.77912", "l1_norm", "93.31", "%", "51,240"],
        ["upload", "97.49", "%", "416,520"],
    ]
