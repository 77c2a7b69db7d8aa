"""Every way of being wrong that a user meets: named, with a hint, and nothing left behind."""

from __future__ import annotations

import copy
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from secateur.client import Secateur
from secateur.errors import ApiError

from tests.e2e import models
from tests.e2e.conftest import Run, Server

INPUTS = [{"shape": models.SHAPE}]
GOOD: dict[str, Any] = {
    "inputs": INPUTS,
    "stages": [{"stage": "prune", "allocation": {"amount": 0.5}}],
    "measure": {"batch_sizes": [1], "runs": 5},
}
TRAINED: dict[str, Any] = {
    "stages": [*GOOD["stages"], {"stage": "finetune", "epochs": 1}],
    "measure": GOOD["measure"],
}


@pytest.fixture(autouse=True)
def nothing_left(server: Server) -> Iterator[None]:
    """After every test the server's folders hold finished files only.

    Every uploaded model is inspected, which may take a while on a busy machine."""
    yield
    deadline = time.monotonic() + 60
    while server.debris() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.debris() == []


def changed(recipe: dict[str, Any], *path: Any, value: Any) -> dict[str, Any]:
    """A copy of the recipe with one field changed."""
    recipe = copy.deepcopy(recipe)
    here: Any = recipe
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    return recipe


@pytest.mark.parametrize(
    ("recipe", "field", "says"),
    [
        (changed(GOOD, "stages", 0, "criterium", value="l1_norm"),
         "recipe.stages.0.criterium", "criterion"),
        (changed(GOOD, "stages", 0, "criterion", value="best"),
         "recipe.stages.0.criterion", "l1_norm"),
        (changed(GOOD, "stages", 0, "allocation", "amount", value=1.5),
         "recipe.stages.0.allocation.amount", "less than 1"),
        (changed(GOOD, "stages", 0, "allocation", "amount", value=0),
         "recipe.stages.0.allocation.amount", "greater than 0"),
        (changed(GOOD, "stages", 0, "stage", value="polish"),
         "recipe.stages.0.stage", "prune"),
        (changed(GOOD, "stages", value=[]), "recipe.stages", "at least 1"),
    ],
)  # fmt: skip
def test_wrong_recipe_field(
    client: Secateur, files: Path, recipe: dict[str, Any], field: str, says: str
) -> None:
    model = client.upload_model(files / "small.pt")
    before = {job.id for job in client.jobs()}
    with pytest.raises(ApiError) as caught:
        client.create_job(model, recipe)
    assert caught.value.status == 422
    assert [fault.field for fault in caught.value.problem.errors] == [field]
    assert says in caught.value.problem.errors[0].message
    assert caught.value.hint
    assert {job.id for job in client.jobs()} == before


def test_recipe_that_trains_without_a_dataset(client: Secateur, files: Path) -> None:
    model = client.upload_model(files / "small.pt")
    with pytest.raises(ApiError) as caught:
        client.create_job(model, TRAINED | {"inputs": INPUTS})
    assert caught.value.status == 422
    assert "stages.1" in str(caught.value) or "dataset_id" in str(caught.value)


def test_unknown_layer_pattern(client: Secateur, files: Path) -> None:
    model = client.wait_until_inspected(client.upload_model(files / "small.pt"))
    with pytest.raises(ApiError) as caught:
        client.create_job(model, changed(GOOD, "stages", 0, "exclude", value=["nowhere.*"]))
    (fault,) = caught.value.problem.errors
    assert fault.field == "recipe.stages.0.exclude.0"
    assert "nowhere.*" in fault.message
    assert "classifier" in fault.message


def test_wrong_target_dtype(client: Secateur, files: Path) -> None:
    model = client.upload_model(files / "small.pt")
    dataset = client.upload_dataset(files / "float_targets.safetensors")
    with pytest.raises(ApiError) as caught:
        client.create_job(model, TRAINED, dataset=dataset)
    (fault,) = caught.value.problem.errors
    assert fault.field == "dataset_id"
    assert "train/targets/0" in fault.message
    assert "int64" in fault.message


JOBS = {
    "inputs that do not fit": (
        "small", changed(GOOD, "inputs", value=[{"shape": [1, 3, 8, 8]}]),
        "inputs-do-not-fit", "inputs",
    ),
    "nothing to prune": (
        "small", changed(GOOD, "stages", 0, "exclude", value=["*"]), "nothing-pruned", "stages.0",
    ),
    "model that raises": ("raises", GOOD, "model-raised", "weather is wrong"),
}  # fmt: skip


@pytest.mark.exhaustive  # tests/workers/test_runner.py has a model that raises
@pytest.mark.parametrize("case", JOBS)
def test_job_that_cannot_work(client: Secateur, files: Path, case: str) -> None:
    model, recipe, kind, names = JOBS[case]
    job = client.create_job(client.upload_model(files / f"{model}.pt"), recipe)
    job = client.wait(job, timeout=120)
    assert job.status == "failed", job
    error = job.error
    assert error is not None
    assert error.type == kind, error
    assert all((error.title, error.hint, error.where)), error
    assert names in error.where + error.title + error.hint, error
    assert "Traceback" not in error.title + error.hint
    # What a retry may resume from is kept; no result is.
    assert {artifact.kind for artifact in client.artifacts(job)} <= {"checkpoint"}


@pytest.mark.exhaustive
def test_an_operator_without_a_rule_is_frozen_and_named(client: Secateur, files: Path) -> None:
    job = client.create_job(client.upload_model(files / "mixes.pt"), GOOD, type="plan")
    job = client.wait(job, timeout=120)
    assert job.status == "succeeded", job.error
    assert job.result is not None
    frozen = {entry["layer"]: entry for entry in job.result["frozen"]}
    assert "cumsum" in frozen["first"]["op"] + frozen["first"]["reason"], frozen


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy of an archive with entries changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_operator_this_build_does_not_have(client: Secateur, files: Path, tmp_path: Path) -> None:
    def rename(name: str, data: bytes) -> bytes:
        return data.replace(b"torch.relu", b"torch.relumax") if name.endswith(".py") else data

    odd = rewritten(files / "small.pt", tmp_path / "odd.pt", rename)
    error = refused(lambda: client.upload_model(odd))
    assert "`torch.relumax`" in str(error)
    assert "models.py:" in str(error)


def refused(upload: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        upload()
    assert caught.value.status in (400, 413, 422), caught.value
    assert caught.value.hint, caught.value
    return caught.value


def uploaded(client: Secateur) -> set[str]:
    return {item.id for items in (client.models(), client.datasets()) for item in items}


def test_operator_that_writes_files(client: Secateur, files: Path) -> None:
    before = uploaded(client)
    error = refused(lambda: client.upload_model(files / "writes_files.pt"))
    assert "save" in str(error)
    assert uploaded(client) == before
    assert not Path("/tmp/stolen").exists()  # noqa: S108 - what the model would have written


def test_not_a_torchscript_file(client: Secateur, tmp_path: Path) -> None:
    before = uploaded(client)
    (tmp_path / "text.pt").write_text("not a model at all")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state_dict.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("text.pt", "state_dict.pt", "empty.pt"):
        refused(lambda name=name: client.upload_model(tmp_path / name))
    assert "torch.jit.script" in str(refused(lambda: client.upload_model(tmp_path / "text.pt")))
    assert uploaded(client) == before


def test_truncated_file(client: Secateur, files: Path, tmp_path: Path) -> None:
    before = uploaded(client)
    whole = (files / "small.pt").read_bytes()
    for part in (0.5, 0.99):
        (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * part)])
        refused(lambda: client.upload_model(tmp_path / "cut.pt"))
    data = (files / "good.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:-100])
    refused(lambda: client.upload_dataset(tmp_path / "cut.safetensors"))
    assert uploaded(client) == before


def test_upload_that_breaks_off(client: Secateur, server: Server, files: Path) -> None:
    """A client that announces more bytes than it sends, then hangs up."""
    before = uploaded(client)
    address = urlsplit(server.endpoint.url)
    whole = (files / "small.pt").read_bytes()
    head = (
        f"POST /v1/models?name=cut HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {server.endpoint.api_key}\r\nIdempotency-Key: cut\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(whole)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(head.encode() + whole[: len(whole) // 2])
    time.sleep(0.5)
    assert uploaded(client) == before


def test_wrong_digest(client: Secateur, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that changed on the way are refused by their announced SHA-256."""
    before = uploaded(client)
    monkeypatch.setattr("secateur.client.file_sha256", lambda _path: "0" * 64)
    refused(lambda: client.upload_model(files / "mixes.pt", name="changed on the way"))
    assert "changed on the way" not in [model.name for model in client.models()]
    assert uploaded(client) == before


def test_empty_dataset(client: Secateur, files: Path, tmp_path: Path) -> None:
    before = uploaded(client)
    error = refused(lambda: client.upload_dataset(files / "empty.safetensors"))
    assert "train/" in str(error)
    (tmp_path / "nothing.safetensors").write_bytes(b"")
    refused(lambda: client.upload_dataset(tmp_path / "nothing.safetensors"))
    assert uploaded(client) == before


RECIPE_FILE = "stages:\n  - stage: prune\n    allocation: {amount: 0.5}\n"


@pytest.mark.exhaustive
def test_cli_explains_a_failed_job(secateur: Run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("inputs: [{shape: [1, 3, 8, 8]}]\n" + RECIPE_FILE)
    done = secateur("compress", str(files / "small.pt"), "--recipe", "recipe.yaml", "--out", "out")
    assert done.returncode == 1
    assert "inputs-do-not-fit" in done.stderr
    assert "where:" in done.stderr
    assert "hint:" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_cli_names_the_field_the_server_refused(secateur: Run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "inputs: [{shape: [1, 1, 8, 8]}]\n" + RECIPE_FILE + '    exclude: ["nowhere.*"]\n'
    )
    done = secateur("compress", str(files / "small.pt"), "--recipe", "recipe.yaml", "--out", "out")
    assert done.returncode == 2
    assert "line 5: stages.0.exclude.0: `nowhere.*` matches no layer" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.exhaustive
def test_cli_keeps_the_report_of_a_broken_constraint(
    secateur: Run, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "inputs: [{shape: [1, 1, 8, 8]}]\n" + RECIPE_FILE + "constraints: {min_speedup: 1000}\n"
    )
    done = secateur("compress", str(files / "small.pt"), "--recipe", "recipe.yaml", "--out", "out")
    assert done.returncode == 1
    assert "constraint-unmet" in done.stderr
    assert "constraints.min_speedup" in done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["failed-report.html", "failed-report.json"]


def test_cli_upload_refused(secateur: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("inputs: [{shape: [1]}]\n" + RECIPE_FILE)
    (tmp_path / "model.pt").write_text("not a model")
    done = secateur("compress", "model.pt", "--recipe", "recipe.yaml", "--out", "out")
    assert done.returncode == 3
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
