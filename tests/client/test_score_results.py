"""The results of a score job as a folder: a plot, scores and a report, and no model."""

from __future__ import annotations

from pathlib import Path

import pytest
from secateur.client import Secateur
from secateur.errors import SecateurError
from secateur.results import save_results

from tests.client.faulty_server import serving
from tests.client.test_results import JOB, content, listing

KINDS = ("report_json", "report_html", "recipe", "scores", "plot", "checkpoint")


def test_a_score_job_is_whole_without_a_model(tmp_path: Path) -> None:
    job = JOB.model_copy(update={"type": "score"})
    with serving(listing(*KINDS), *(content(kind) for kind in KINDS)) as server:
        files = save_results(Secateur(server.url, "key"), job, tmp_path / "out")
    assert {path.name: path.read_text() for path in files} == {
        "report.json": "report_json",
        "report.html": "report_html",
        "recipe.yaml": "recipe",
        "scores.safetensors": "scores",
        "sensitivity.svg": "plot",
    }


def test_without_its_plot_it_is_not(tmp_path: Path) -> None:
    job = JOB.model_copy(update={"type": "score"})
    kinds = [kind for kind in KINDS if kind != "plot"]
    with (
        serving(listing(*kinds), *(content(kind) for kind in kinds)) as server,
        pytest.raises(SecateurError, match=r"has no sensitivity\.svg"),
    ):
        save_results(Secateur(server.url, "key"), job, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
