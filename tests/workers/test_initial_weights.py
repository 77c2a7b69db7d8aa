"""The upload with the initial weights on its way to the runner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from tests.workers.uploads import Linear, scripted
from tests.workers.worker_world import WorkerWorld

RECIPE = {
    "stages": [
        {
            "stage": "prune",
            "allocation": {"amount": 0.5},
            "schedule": {"kind": "imp", "rounds": 1, "training": {"epochs": 1}},
        }
    ],
    "measure": {"runs": 5, "batch_sizes": [1]},
}


class Wider(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 9), nn.Linear(9, 2)


class Renamed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


@pytest.fixture
def world(tmp_path: Path) -> WorkerWorld:
    return WorkerWorld(tmp_path)


def run(world: WorkerWorld, initial: bytes) -> str:
    torch.manual_seed(1)
    tensors = {
        f"{split}/{role}/0": value
        for split in ("train", "validation")
        for role, value in (("inputs", torch.randn(8, 4)), ("targets", torch.arange(8) % 2))
    }
    job_id = world.enqueue(
        model_id=world.add_model(scripted(Linear)),
        initial_model_id=world.add_model(initial),
        dataset_id=world.add_dataset(save(tensors)),
        recipe=RECIPE,
    )
    world.supervisor().run(job_id)
    return job_id


@pytest.mark.parametrize(
    ("kind", "where", "words"),
    [
        (Wider, "first.weight", "`first.weight` is [9, 4] in the initial weights and [8, 4]"),
        pytest.param(
            Renamed, "second.bias", "lack `second.bias` and 1 more", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_other_names_or_shapes_fail_the_job_and_name_the_parameter(
    world: WorkerWorld, kind: type[nn.Module], where: str, words: str
) -> None:
    error = world.error(run(world, scripted(kind)))
    assert (error["type"], error["where"]) == ("initial-weights-invalid", where)
    assert words in error["title"]
    assert error["hint"]


@pytest.mark.exhaustive
def test_a_file_that_does_not_load_fails_the_job_and_names_the_field(world: WorkerWorld) -> None:
    error = world.error(run(world, b"no archive"))
    assert (error["type"], error["where"]) == ("initial-weights-invalid", "initial_model_id")


def test_a_file_that_is_gone_is_named(world: WorkerWorld) -> None:
    initial = world.add_model(b"initial weights")
    for sha256 in list(world.store.blobs()):
        if world.store.path(sha256).read_bytes() == b"initial weights":
            world.store.delete(sha256)
    job_id = world.enqueue(initial_model_id=initial)
    world.supervisor().run(job_id)
    error = world.error(job_id)
    assert (error["type"], error["where"]) == ("input-missing", "initial_model_id")
    assert initial in error["title"]
