"""A search through HTTP, SQLite, Celery and runners: with the one slot of an embedded server, and
with a second worker beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from secateur.client import Secateur
from secateur.report import Report
from secateur.report_search import SearchReport
from secateur.transfer import file_sha256

from tests.e2e.conftest import Run, Server

FIRST = "stages.0.allocation.layers.first"
SECOND = "stages.0.allocation.layers.sec*"
RECIPE = {
    "stages": [{"stage": "prune", "allocation": {"layers": {"first": 0.5}}}],
    "measure": {"batch_sizes": [1], "runs": 5},
    "search": {
        "space": {FIRST: [0.25, 0.75], SECOND: {"low": 0.25, "high": 0.5, "step": 0.25}},
        "objectives": ["loss", "params"],
        "trials": 4,
        "parallel": 2,
        "sampler": "grid",
    },
}
RESULTS = [
    "compact.pt", "front.svg", "recipe.yaml", "report.html", "report.json",
    "result-report.html", "result-report.json",
]  # fmt: skip


@contextmanager
def second_worker(server: Server) -> Iterator[None]:
    environment = os.environ | {
        "SECATEUR_DATA_DIR": str(server.folder), "SECATEUR_RUNNER_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "workers.worker", "--queues", "cpu", "--drain-seconds", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            yield
        finally:
            worker.terminate()
            worker.wait(30)


@pytest.mark.exhaustive
def test_cli_with_one_slot(
    secateur: Run, client: Secateur, server: Server, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(RECIPE))
    command = (
        str(files / "small.pt"), "--recipe", "search.yaml",
        "--data", str(files / "good.safetensors"), "--out", "out",
    )  # fmt: skip
    done = secateur("search", *command, timeout=280)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == RESULTS
    report = SearchReport.model_validate_json((out / "report.json").read_bytes())
    assert report.summary in done.stdout.replace("\n", " ")
    assert "trial 3 succeeded: accuracy" in done.stderr

    # every point of the grid once, with the channels that its values leave
    assert [(t.state, t.parameters[FIRST], t.parameters[SECOND]) for t in report.trials] == [
        ("succeeded", 0.25, 0.25), ("succeeded", 0.25, 0.5),
        ("succeeded", 0.75, 0.25), ("succeeded", 0.75, 0.5),
    ]  # fmt: skip

    def parameters(first: int, second: int) -> int:
        # those that are not zero: the shift of an untrained BatchNorm is
        return 9 * first + first + first + 9 * first * second + second + 3 * second + 3

    assert [trial.values["params"] for trial in report.trials] == [
        parameters(6, 12), parameters(6, 8), parameters(2, 12), parameters(2, 8),
    ]  # fmt: skip
    assert report.best["params"] == 3
    assert 3 in report.front

    # the model is that of the chosen trial, certified in its own report, and runs
    assert report.chosen is not None
    chosen = report.trial(report.chosen)
    result = Report.model_validate_json((out / "result-report.json").read_bytes())
    assert result.certificate.passed
    assert result.after.nonzero_parameters == chosen.values["params"]
    assert result.provenance.result_sha256 == file_sha256(out / "compact.pt")
    assert torch.jit.load(str(out / "compact.pt"))(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["stages"][0]["allocation"]["layers"]["first"] == chosen.parameters[FIRST]
    assert recipe.get("search") is None

    # all models are reachable through the artifacts of the trials
    job = next(client.jobs(type="search"))  # the newest; the API's tour makes one too
    trials = {one.trial.number: one for one in client.jobs(parent=job) if one.trial}
    assert sorted(trials) == [0, 1, 2, 3]
    for trial in report.trials:
        kinds = {one.id: one.kind for one in trials[trial.number].artifacts}
        assert kinds[trial.artifacts["model"]] == "model"
    page = client.report_html(job)
    assert "The front" in page
    assert job.result is not None
    assert job.result["chosen"]["number"] == report.chosen
    assert {one.type for one in client.jobs()} >= {"search", "inspect"}
    assert not any(one.parent_id for one in client.jobs())
    assert server.debris() == []

    shown = secateur("jobs", "show", job.id)
    assert "result" in shown.stdout
    wrong = secateur("compress", *command)
    assert wrong.returncode == 2
    assert "`secateur search`" in wrong.stderr


@pytest.mark.exhaustive
def test_two_workers_share_the_trials(client: Secateur, server: Server, files: Path) -> None:
    recipe = yaml.safe_load(yaml.safe_dump(RECIPE))
    recipe["search"] |= {"sampler": "tpe", "trials": 6, "parallel": 4}
    recipe["search"]["space"][FIRST] = {"low": 0.2, "high": 0.8}
    with second_worker(server):
        model = client.upload_model(files / "small.pt")
        dataset = client.upload_dataset(files / "good.safetensors")
        job = client.wait(client.create_job(model, recipe, dataset=dataset), timeout=200)
    assert job.status == "succeeded", job.error
    trials = list(client.jobs(parent=job))
    assert sorted(one.trial.number for one in trials if one.trial) == list(range(6))
    assert all(one.attempt == 1 for one in trials)
    spans = sorted((one.started_at, one.finished_at) for one in trials)
    assert any(later[0] < earlier[1] for earlier, later in pairwise(spans))
