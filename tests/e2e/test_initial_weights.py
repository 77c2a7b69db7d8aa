"""Initial weights that are uploaded beside the model: results worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from secateur.client import Secateur
from secateur.errors import ApiError
from secateur.resources import Job
from torch import Tensor, nn

from tests.e2e.conftest import Run

FINAL = [[4.0, -3.0, 2.0, 1.0], [0.5, -0.5, 1.0, -2.0], [0.0, 3.0, -1.0, 2.0]]
FIRST = [[3.5, -1.0, 0.5, 0.9], [-0.1, 0.3, 0.2, 1.9], [0.2, 0.1, 0.9, -0.4]]
OTHER = [[3.9, -2.9, 1.9, 0.1], [0.2, -0.1, 0.1, 0.1], [0.1, 2.9, 0.1, 0.1]]
"""|final| - |first| = [[.5, 2, 1.5, .1], [.4, .2, .8, .1], [-.2, 2.9, .1, 1.6]]
|final| - |other| = [[.1, .1, .1, .9], [.3, .4, .9, 1.9], [-.1, .1, .9, 1.9]]"""
KEPT_OF_FIRST = [[3.5, -1.0, 0.5, 0.0], [0.0, 0.0, 0.2, 0.0], [0.0, 0.1, 0.0, -0.4]]
KEPT_OF_OTHER = [[0.0, 0.0, 0.0, 0.1], [0.0, -0.1, 0.1, 0.1], [0.0, 0.0, 0.1, 0.1]]
"""The six of twelve weights that grew the most, at their initial values."""

TRAINING = {"epochs": 2, "batch_size": 32, "keep": "last", "optimizer": {"lr": 0.05}}
QUICK = {"batch_sizes": [1], "runs": 5}


class Judged(nn.Module):
    """One layer on the mean brightness of four quarters."""

    def __init__(self, weight: list[list[float]]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor(weight))
            self.layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.nn.functional.adaptive_avg_pool2d(x, [2, 2]).flatten(1))


def stage(kind: str, **schedule: object) -> dict[str, object]:
    return {
        "stage": "prune",
        "criterion": "magnitude_increase",
        "allocation": {"amount": 0.5},
        "schedule": {"kind": kind, "training": TRAINING, **schedule},
    }


@pytest.fixture
def uploads(tmp_path: Path) -> dict[str, Path]:
    """The trained model and two that it may have begun as."""
    paths = {}
    for name, weight in (("final", FINAL), ("first", FIRST), ("other", OTHER)):
        paths[name] = tmp_path / f"{name}.pt"
        torch.jit.script(Judged(weight).eval()).save(str(paths[name]))
    return paths


def result(client: Secateur, job: Job, folder: Path) -> Tensor:
    artifacts = {artifact.kind: artifact for artifact in client.artifacts(job)}
    path = client.download(artifacts["model"], folder / f"{job.id}.pt")
    return torch.jit.load(str(path)).layer.weight.detach()


@pytest.mark.exhaustive
def test_uploaded_initial_weights_decide_the_mask(
    client: Secateur, uploads: dict[str, Path], files: Path, tmp_path: Path
) -> None:
    models = {name: client.upload_model(path) for name, path in uploads.items()}
    data = client.upload_dataset(files / "good.safetensors")
    for model in models.values():
        client.wait_until_inspected(model)

    def run(initial: str | None, *stages: dict[str, object]) -> Job:
        job = client.create_job(
            models["final"],
            {"stages": list(stages), "measure": QUICK},
            dataset=data,
            initial=None if initial is None else models[initial],
        )
        done = client.wait(job, timeout=120)
        assert done.status == "succeeded", (done.error, client.logs(done))
        return done

    # A supermask is the initial weights under the mask, and nothing is trained after it.
    first, other = run("first", stage("supermask")), run("other", stage("supermask"))
    assert first.initial_model_id == models["first"].id
    assert torch.equal(result(client, first, tmp_path), torch.tensor(KEPT_OF_FIRST))
    assert torch.equal(result(client, other, tmp_path), torch.tensor(KEPT_OF_OTHER))
    assert client.report(first).tickets[0].initial == "uploaded"
    own = run(None, stage("supermask"))
    assert own.initial_model_id is None
    assert client.report(own).tickets[0].initial == "job"

    # A ticket trains its kept weights on from there; what the mask holds stays at zero.
    ticket = run("first", stage("imp_rewind", rounds=1, rewind_epoch=1))
    trained, began = result(client, ticket, tmp_path), torch.tensor(KEPT_OF_FIRST)
    assert torch.equal(trained != 0, began != 0)
    assert not torch.equal(trained, began)
    again = result(client, run("first", stage("imp_rewind", rounds=1, rewind_epoch=1)), tmp_path)
    assert torch.equal(again, trained)

    # A recipe without such a schedule is told that it has no use for them.
    with pytest.raises(ApiError) as caught:
        client.create_job(
            models["final"],
            {
                "stages": [
                    {"stage": "prune", "granularity": "element", "allocation": {"amount": 0.5}}
                ]
            },
            dataset=data,
            initial=models["first"],
        )
    assert caught.value.problem.errors[0].field == "recipe.stages"
    assert "`supermask`" in caught.value.problem.errors[0].message


@pytest.mark.exhaustive
def test_command_line(uploads: dict[str, Path], files: Path, secateur: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"stages": [stage("supermask")], "measure": QUICK}))
    base = ("compress", str(uploads["final"]), "--data", str(files / "good.safetensors"))
    done = secateur(
        *base, "--recipe", str(recipe), "--out", "out", "--initial", str(uploads["first"])
    )
    assert done.returncode == 0, done.stderr
    assert "uploaded first.pt" in done.stderr
    weight = torch.jit.load(str(tmp_path / "out" / "compact.pt")).layer.weight.detach()
    assert torch.equal(weight, torch.tensor(KEPT_OF_FIRST))

    plain = {
        "stages": [{"stage": "prune", "granularity": "element", "allocation": {"amount": 0.5}}],
        "measure": QUICK,
    }
    recipe.write_text(yaml.safe_dump(plain))
    refused = secateur(
        *base, "--recipe", str(recipe), "--out", "out2", "--initial", str(uploads["first"])
    )
    assert refused.returncode != 0
    assert "goes back to initial weights" in " ".join(refused.stderr.split())
    assert "--initial" in refused.stderr
