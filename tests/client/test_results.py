from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from secateur import transport
from secateur.client import Secateur
from secateur.errors import DownloadCorrupt, SecateurError
from secateur.resources import Job
from secateur.results import save_failed_report, save_results

from tests.client.faulty_server import Answer, answer, serving

KINDS = ("model", "report_json", "report_html", "recipe", "checkpoint")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MEDIA = {"onnx": "application/zip", "triton": "application/zip"}
JOB = Job(
    id="job_1", type="compress", status="succeeded", name="", model_id="mdl_1", dataset_id=None,
    recipe={"version": 1}, device="auto", queue="cpu", stage=None, progress=None, attempt=1,
    error=None, metadata={}, created_at=NOW, started_at=NOW, finished_at=NOW,
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.001)


def listing(*kinds: str) -> Answer:
    artifacts: list[dict[str, Any]] = [
        {
            "id": f"art_{kind}", "job_id": "job_1", "kind": kind, "name": kind,
            "media_type": MEDIA.get(kind, "text/plain"),
            "sha256": hashlib.sha256(kind.encode()).hexdigest(),
            "bytes": len(kind), "created_at": NOW.isoformat(),
        }
        for kind in kinds
    ]  # fmt: skip
    return answer({"data": artifacts, "next_cursor": None, "has_more": False})


def content(text: str) -> Answer:
    return lambda handler: handler.send(200, text.encode())


def test_an_export_of_several_files_is_a_zip(tmp_path: Path) -> None:
    kinds = (*KINDS[:-1], "onnx", "pt2", "triton")
    with serving(listing(*kinds), *(content(kind) for kind in kinds)) as server:
        files = save_results(Secateur(server.url, "key"), JOB, tmp_path / "out")
    names = {path.name for path in files}
    assert names >= {"compact.pt", "compact.onnx.zip", "compact.pt2", "compact.triton.zip"}


def test_all_results_under_their_names(tmp_path: Path) -> None:
    answers = [listing(*KINDS), *(content(kind) for kind in KINDS)]
    with serving(*answers) as server:
        files = save_results(Secateur(server.url, "key"), JOB, tmp_path / "a" / "out")
    names = {path.name: path.read_text() for path in files}
    assert names == {
        "compact.pt": "model",
        "report.json": "report_json",
        "report.html": "report_html",
        "recipe.yaml": "recipe",
    }
    assert sorted(path.name for path in (tmp_path / "a" / "out").iterdir()) == sorted(names)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["out"]


def test_a_recipe_the_server_did_not_keep_is_written_from_the_job(tmp_path: Path) -> None:
    answers = [listing(*KINDS[:3]), *(content(kind) for kind in KINDS[:3])]
    with serving(*answers) as server:
        save_results(Secateur(server.url, "key"), JOB, tmp_path)
    assert (tmp_path / "recipe.yaml").read_text() == "version: 1\n"


def test_one_corrupt_file_and_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "compact.pt").write_text("earlier")
    answers = [listing(*KINDS), content("model"), content("report_jsom")]
    with serving(*answers) as server, pytest.raises(DownloadCorrupt):
        save_results(Secateur(server.url, "key"), JOB, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["compact.pt"]
    assert (tmp_path / "compact.pt").read_text() == "earlier"


def test_an_incomplete_job_writes_nothing(tmp_path: Path) -> None:
    answers = [listing("model"), content("model")]
    with (
        serving(*answers) as server,
        pytest.raises(SecateurError, match=r"report\.html, report\.json"),
    ):
        save_results(Secateur(server.url, "key"), JOB, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_report_of_a_failed_job_has_its_own_name(tmp_path: Path) -> None:
    answers = [listing("report_json", "model"), content("report_json")]
    with serving(*answers) as server:
        saved = save_failed_report(Secateur(server.url, "key"), JOB, tmp_path / "out")
    assert [path.name for path in saved] == ["failed-report.json"]
    assert (tmp_path / "out" / "failed-report.json").read_text() == "report_json"


def test_a_failed_job_without_a_report_makes_no_folder(tmp_path: Path) -> None:
    with serving(listing("checkpoint")) as server:
        assert save_failed_report(Secateur(server.url, "key"), JOB, tmp_path / "out") == []
    assert list(tmp_path.iterdir()) == []
