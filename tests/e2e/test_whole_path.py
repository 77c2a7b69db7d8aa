"""From a file to a smaller file, through HTTP, SQLite, Celery and the runner."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnxruntime
import pytest
import torch
import yaml
from safetensors.torch import load_file
from secateur.client import Secateur
from secateur.errors import ApiError
from secateur.report import Report
from secateur.resources import Event
from secateur.transfer import file_sha256

from tests.e2e import models
from tests.e2e.conftest import Run, Server

RECIPE = {
    "version": 1,
    "stages": [
        {
            "stage": "prune",
            "allocation": {"amount": 0.5},
            "schedule": {"kind": "iterative", "rounds": 2, "finetune": {"epochs": 1}},
        },
        {"stage": "finetune", "epochs": 2},
    ],
    "measure": {"batch_sizes": [1, 4], "runs": 5},
}
RESULTS = ["compact.pt", "recipe.yaml", "report.html", "report.json"]


@pytest.mark.exhaustive
def test_sdk(client: Secateur, server: Server, files: Path, tmp_path: Path) -> None:
    uploaded = client.upload_model(files / "small.pt")
    assert uploaded.upload_sha256 == file_sha256(files / "small.pt")
    assert client.upload_model(files / "small.pt").id == uploaded.id
    dataset = client.upload_dataset(files / "good.safetensors")
    assert dataset.splits == {"train": 96, "validation": 48}

    events: list[Event] = []
    created = client.create_job(
        uploaded,
        RECIPE | {"exports": ["onnx", {"format": "safetensors"}]},
        dataset=dataset,
        name="whole path",
        metadata={"a": "b"},
    )
    job = client.wait(created, on_event=events.append, timeout=120)
    assert job.status == "succeeded", (job.error, client.logs(job))
    assert (job.name, job.metadata, job.attempt) == ("whole path", {"a": "b"}, 1)

    assert [event.seq for event in events] == sorted({event.seq for event in events})
    kinds = [event.type for event in events]
    assert kinds[0] == "queued"
    assert kinds[-1] == "succeeded"
    assert {"started", "stage_started", "metric", "stage_finished"} <= set(kinds)
    assert list(client.events(job)) == events
    assert list(client.events(job, after=events[-2].seq)) == events[-1:]

    names = {metric.name for metric in client.metrics(job)}
    assert "train/loss" in names
    report = client.report(job)
    assert report.certificate.passed
    assert report.after.parameters < report.before.parameters
    assert report.after.macs < 0.6 * report.before.macs
    assert report.after.accuracy is not None
    assert report.after.accuracy.total == 48
    assert client.report_html(job).lstrip().lower().startswith("<!doctype html")

    artifacts = {artifact.kind: artifact for artifact in client.artifacts(job)}
    compact = client.download(artifacts["model"], tmp_path / "compact.pt")
    assert report.provenance.result_sha256 == file_sha256(compact)
    assert report.after.file_bytes == compact.stat().st_size
    model = torch.jit.load(str(compact))
    assert model(torch.zeros(models.SHAPE)).shape == (1, 3)
    assert {one.format: one.state for one in report.exports} == {
        "onnx": "made",
        "safetensors": "made",
    }
    graph = client.download(artifacts["onnx"], tmp_path / "compact.onnx")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    images = torch.rand(7, *models.SHAPE[1:])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert torch.allclose(torch.from_numpy(found), model(images), atol=1e-4)
    weights = load_file(client.download(artifacts["safetensors"], tmp_path / "w.safetensors"))
    assert set(weights) == set(model.state_dict())
    original = client.download_model(uploaded, tmp_path / "again.pt")
    assert file_sha256(original) == uploaded.sha256

    assert client.job(job.id).result is not None
    assert job.id in [found.id for found in client.jobs(status="succeeded", type="compress")]
    assert client.model(uploaded.id).status == "ready"
    assert client.cancel(job).status == "succeeded"
    assert server.debris() == []


def test_lists_follow_cursors(client: Secateur, files: Path) -> None:
    model = client.upload_model(files / "small.pt")
    ids = [
        client.create_job(model, {"inputs": [{"shape": models.SHAPE}], "stages": [PRUNE]}).id
        for _ in range(3)
    ]
    found = [job.id for job in client.jobs(model_id=model.id, limit=2)]
    assert set(ids) <= set(found)
    assert len(found) == len(set(found))
    for job_id in ids:
        client.cancel(job_id)


QUICK = {"measure": {"batch_sizes": [1], "runs": 5}}
PRUNE = {"stage": "prune", "allocation": {"amount": 0.5}}


def from_quickstart(language: str) -> list[str]:
    """The code blocks of the quickstart in one language."""
    page = Path(__file__).parents[2] / "docs" / "quickstart.md"
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def fewer(text: str, shown: str, run: str) -> str:
    """The page's text with less training: the test asks whether it works, not how well."""
    assert shown in text
    return text.replace(shown, run)


def python(source: str, server: Server, folder: Path) -> str:
    """Run a script of the quickstart as the user would."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source], cwd=folder,
        env=os.environ | {"XDG_STATE_HOME": str(server.folder / "state")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart_and_cli(secateur: Run, server: Server, tmp_path: Path) -> None:
    """The quickstart's files and commands, then the other commands on what they left."""
    train, use, sdk = from_quickstart("python")
    python(fewer(train, "range(10)", "range(3)"), server, tmp_path)
    (recipe,) = from_quickstart("yaml")
    recipe = fewer(fewer(recipe, "epochs: 3", "epochs: 1"), "epochs: 6", "epochs: 2")
    recipe = fewer(recipe, "max_accuracy_drop: 0.02", "max_accuracy_drop: 0.2")
    (tmp_path / "recipe.yaml").write_text(recipe)
    done = secateur(
        "compress", "model.pt", "--recipe", "recipe.yaml",
        "--data", "data.safetensors", "--out", "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "torch.Size([5, 10])" in python(use, server, tmp_path)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == RESULTS
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data.safetensors", "model.pt", "out", "recipe.yaml",
    ]  # fmt: skip
    report = Report.model_validate_json((out / "report.json").read_bytes())
    assert hashlib.sha256((out / "compact.pt").read_bytes()).hexdigest() == (
        report.provenance.result_sha256
    )
    assert yaml.safe_load((out / "recipe.yaml").read_text())["stages"][1]["epochs"] == 2
    assert "parameters" in done.stdout
    assert "certificate passed" in done.stdout
    assert "prune round 1 of 3" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"stages": [PRUNE]} | QUICK))
    assert "non-zero parameters" in python(sdk, server, tmp_path)
    assert (out / "compact.pt").stat().st_size != report.after.file_bytes

    listed = json.loads(secateur("jobs", "list", "--json").stdout)
    job_id = listed[0]["id"]
    assert listed[0]["status"] == "succeeded"
    assert job_id in secateur("jobs", "list").stdout
    assert "certificate passed" in secateur("jobs", "show", job_id).stdout
    assert "model.pt" in secateur("models", "list").stdout
    model_id = listed[0]["model_id"]
    assert "layers: 0, 1, 3, 4, 7, 8, 12" in secateur("models", "show", model_id).stdout
    assert "l1_norm" in secateur("methods", "list").stdout
    assert "Li" in secateur("methods", "show", "l1_norm").stdout
    missing = secateur("jobs", "show", "job_absent")
    assert missing.returncode == 3
    assert "hint:" in missing.stderr


def _heed_interrupts() -> None:
    # Tests that a shell runs in the background inherit that interrupts are ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.exhaustive
def test_ctrl_c_cancels_the_job(
    server: Server, client: Secateur, files: Path, tmp_path: Path
) -> None:
    long = RECIPE | {"stages": [PRUNE, {"stage": "finetune", "epochs": 10_000}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(long))
    command = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("secateur")), "compress", str(files / "small.pt"),
            "--recipe", "recipe.yaml", "--data", str(files / "good.safetensors"),
            "--out", "out", "--name", "to be interrupted",
        ],
        cwd=tmp_path, env=os.environ | {"XDG_STATE_HOME": str(server.folder / "state")},
        stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts,  # noqa: PLW1509 - takes no lock
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            jobs = [job for job in client.jobs(type="compress") if job.name == "to be interrupted"]
            if jobs and jobs[0].stage is not None and jobs[0].status == "running":
                break
            assert time.monotonic() < deadline, jobs
            time.sleep(0.2)
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 130, errors
    assert f"{jobs[0].id} is canceled" in errors
    assert client.wait(jobs[0], timeout=30).status == "canceled"
    assert not (tmp_path / "out").exists()


def test_wrong_key(server: Server) -> None:
    with Secateur(server.endpoint.url, "wrong") as stranger, pytest.raises(ApiError) as caught:
        next(stranger.jobs())
    assert caught.value.status == 401
    assert caught.value.hint


def test_limits_and_methods(client: Secateur) -> None:
    assert client.limits().max_model_bytes > 0
    assert {"l1_norm", "l2_norm", "random"} <= {method.name for method in client.methods()}
