"""Uploaded losses and metrics on their way to the runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from tests.workers.uploads import Linear, scripted
from tests.workers.worker_world import WorkerWorld


class Absolute(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs().mean()


class Rows(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs().mean(1)


@pytest.fixture
def world(tmp_path: Path) -> WorkerWorld:
    return WorkerWorld(tmp_path)


def enqueue(world: WorkerWorld, **uploads: str) -> str:
    torch.manual_seed(1)
    tensors = {
        f"{split}/{role}/0": torch.randn(8, width)
        for split in ("train", "validation")
        for role, width in (("inputs", 4), ("targets", 2))
    }
    recipe: dict[str, Any] = {
        "stages": [
            {"stage": "prune", "allocation": {"amount": 0.5}},
            {"stage": "finetune", "epochs": 1},
        ],
        "objective": {"loss": "module", "metric": "module", "higher_is_better": False},
        "measure": {"runs": 5, "batch_sizes": [1]},
    }
    return world.enqueue(
        model_id=world.add_model(scripted(Linear)),
        dataset_id=world.add_dataset(save(tensors)),
        recipe=recipe,
        **uploads,
    )


def test_a_job_with_a_loss_and_a_metric_of_its_own(world: WorkerWorld) -> None:
    module = world.add_model(scripted(Absolute))
    job_id = enqueue(world, loss_model_id=module, metric_model_id=module)
    world.supervisor().run(job_id)
    job = world.job(job_id)
    assert job.status == "succeeded", job.error
    assert job.result["metric"] == "module"
    assert job.result["accuracy_change"] is None
    assert job.result["metric_before"] is not None


@pytest.mark.exhaustive
def test_a_module_that_is_no_loss_fails_the_job_and_names_its_field(world: WorkerWorld) -> None:
    good = world.add_model(scripted(Absolute))
    job_id = enqueue(world, loss_model_id=world.add_model(scripted(Rows)), metric_model_id=good)
    world.supervisor().run(job_id)
    error = world.error(job_id)
    assert (error["type"], error["where"]) == ("objective-module-invalid", "loss_model_id")
    assert "`Rows` returns float32[1], and no scalar" in error["title"] or "Rows" in error["title"]


def test_a_file_that_is_gone_is_named(world: WorkerWorld) -> None:
    loss = world.add_model(b"a loss")
    for sha256 in list(world.store.blobs()):
        if world.store.path(sha256).read_bytes() == b"a loss":
            world.store.delete(sha256)
    job_id = world.enqueue(loss_model_id=loss)
    world.supervisor().run(job_id)
    error = world.error(job_id)
    assert (error["type"], error["where"]) == ("input-missing", "loss_model_id")
