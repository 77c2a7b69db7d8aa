"""A scan through HTTP, SQLite, Celery and the runner, and by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from secateur.client import Secateur
from secateur.report_score import ScoreReport
from secateur.results import save_results
from secateur.transfer import file_sha256

from tests.e2e.conftest import Run, Server

RATIOS = [0.25, 0.5, 0.875]
RECIPE = {
    "stages": [
        {"stage": "score", "measure": "accuracy", "ratios": RATIOS},
        {"stage": "score", "granularity": "element", "ratios": [0.5], "exclude": ["classifier"]},
    ]
}
RESULTS = ["recipe.yaml", "report.html", "report.json", "scores.safetensors", "sensitivity.svg"]


def test_sdk(client: Secateur, server: Server, files: Path, tmp_path: Path) -> None:
    model = client.upload_model(files / "small.pt")
    dataset = client.upload_dataset(files / "good.safetensors")
    job = client.wait(client.create_job(model, RECIPE, dataset=dataset), timeout=120)
    assert job.status == "succeeded", (job.error, client.logs(job))
    assert job.type == "score"

    report = client.score_report(job)
    channels, weights = report.scans
    assert [(layer.name, layer.units) for layer in channels.layers] == [
        ("first", 8), ("second", 16),
    ]  # fmt: skip
    assert [point.removed for layer in channels.layers for point in layer.points] == [
        2, 4, 7, 4, 8, 14,
    ]  # fmt: skip
    assert [layer.name for layer in weights.layers] == ["first.weight", "second.weight"]

    # The same by hand: without its lowest filters by l1 norm, what is left of the accuracy?
    data = load_file(files / "good.safetensors")
    for layer in channels.layers:
        for point in layer.points:
            network = torch.jit.load(str(files / "small.pt"))
            module = getattr(network, layer.name)
            gone = module.weight.abs().sum([1, 2, 3]).argsort()[: point.removed]
            with torch.no_grad():
                module.weight[gone] = 0
                module.bias[gone] = 0
                if layer.name == "first":
                    network.norm.weight[gone] = 0
                    network.norm.bias[gone] = 0
                guesses = network(data["validation/inputs/0"]).argmax(1)
            assert point.accuracy is not None
            right = int((guesses == data["validation/targets/0"]).sum())
            assert (point.accuracy.correct, point.accuracy.total) == (right, 48)

    events = list(client.events(job))
    assert [e.data["name"] for e in events if e.type == "stage_finished"] == [
        "scan channels by l1_norm", "scan elements by l1_norm",
    ]  # fmt: skip
    assert len(list(client.metrics(job, name="scan/accuracy"))) == 6
    assert len(list(client.metrics(job, name="scan/drift"))) == 2
    assert job.result is not None
    assert len(job.result["scans"][0]["layers"]) == 2

    paths = {path.name: path for path in save_results(client, job, tmp_path / "out")}
    assert sorted(paths) == RESULTS
    kinds = {artifact.kind: artifact for artifact in client.artifacts(job)}
    assert "model" not in kinds
    assert kinds["plot"].media_type == "image/svg+xml"
    assert report.provenance.result_sha256 == file_sha256(paths["scores.safetensors"])
    scores = load_file(paths["scores.safetensors"])
    assert set(scores) == {
        "stages.0/first", "stages.0/second", "stages.1/first.weight", "stages.1/second.weight",
    }  # fmt: skip
    original = torch.jit.load(str(files / "small.pt"))
    expected = original.second.weight.abs().sum([1, 2, 3]).double()
    torch.testing.assert_close(scores["stages.0/second"], expected)
    page = client.report_html(job)
    assert "There is no certificate" in page
    assert page.count("<svg") == 2
    assert server.debris() == []


@pytest.mark.exhaustive
def test_cli(secateur: Run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.yaml").write_text(yaml.safe_dump(RECIPE))
    command = (
        str(files / "small.pt"), "--recipe", "scan.yaml",
        "--data", str(files / "good.safetensors"), "--out", "out",
    )  # fmt: skip
    done = secateur("score", *command)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == RESULTS
    report = ScoreReport.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert report.summary in done.stdout.replace("\n", " ")
    assert "87.5 %" in done.stdout
    assert "scan channels by l1_norm" in done.stderr
    wrong = secateur("compress", *command)
    assert wrong.returncode == 2
    assert "`secateur score`" in wrong.stderr
    prune = {"stage": "prune", "allocation": {"amount": 0.5}}
    (tmp_path / "scan.yaml").write_text(yaml.safe_dump({"stages": [prune]}))
    wrong = secateur("score", *command)
    assert wrong.returncode == 2
    assert "`secateur compress`" in wrong.stderr


@pytest.mark.exhaustive
def test_cli_shows_a_scan(secateur: Run, client: Secateur, files: Path) -> None:
    recipe = {"inputs": [{"shape": [2, 1, 8, 8]}], "stages": [{"stage": "score", "ratios": [0.5]}]}
    job = client.wait(client.create_job(client.upload_model(files / "small.pt"), recipe))
    assert job.status == "succeeded", job.error
    shown = secateur("jobs", "show", job.id)
    assert shown.returncode == 0, shown.stderr
    assert "drift" in shown.stdout
    assert "second" in shown.stdout


@pytest.mark.exhaustive
def test_a_scan_that_finds_nothing_fails_with_the_remedy(client: Secateur, files: Path) -> None:
    recipe = {
        "inputs": [{"shape": [2, 1, 8, 8]}],
        "stages": [{"stage": "score", "ratios": [0.01]}],
    }
    job = client.wait(client.create_job(client.upload_model(files / "small.pt"), recipe))
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.type, job.error.where) == ("nothing-to-scan", "recipe.stages.0.ratios")
    assert "`second`, has 16" in job.error.title
    assert "0.062" in job.error.hint
