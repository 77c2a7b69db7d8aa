from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from secateur.recipe import Recipe

from engine.job import JobInput
from engine.pipeline import CompressResult, compress
from tests.engine.digits import Recorder, digits, save_scripted, write_trained
from tests.engine.pipeline.tiny import Tiny

QUICK = {"batch_sizes": [1, 8], "runs": 5}
EVERY_EPOCH = {"seconds": 86_400}
"""Whatever it costs, and none within an epoch: which checkpoints there are depends on no clock."""


@pytest.fixture(scope="session")
def lenet(tmp_path_factory) -> Path:
    return write_trained(tmp_path_factory.mktemp("lenet") / "lenet.pt")


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.safetensors"
    save_file(digits(), path)
    return path


@pytest.fixture(scope="session")
def little_data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "little.safetensors"
    save_file({name: tensor[:200].clone() for name, tensor in digits().items()}, path)
    return path


def recipe_of(recipe):
    made = Recipe.model_validate({"measure": QUICK} | recipe)
    if made.needs_training() is None:
        return made
    return Recipe.model_validate({"measure": QUICK, "checkpoint": EVERY_EPOCH} | recipe)


@dataclass
class Done:
    result: CompressResult
    heard: Recorder
    folder: Path


@pytest.fixture
def make_job(tmp_path):
    count = iter(range(1000))

    def make(model, recipe, dataset=None, checkpoint=None):
        workdir = tmp_path / f"work{next(count)}"
        workdir.mkdir()
        return JobInput(
            model=model,
            recipe=recipe_of(recipe),
            workdir=workdir,
            dataset=dataset,
            threads=torch.get_num_threads(),
            checkpoint=checkpoint,
        )

    return make


@pytest.fixture
def run(make_job):
    def run(model, recipe, dataset=None, checkpoint=None) -> Done:
        job = make_job(model, recipe, dataset, checkpoint)
        heard = Recorder()
        return Done(compress(job, heard), heard, job.workdir)

    return run


@pytest.fixture
def tiny(tmp_path):
    return save_scripted(Tiny().eval(), tmp_path / "tiny.pt")


@pytest.fixture
def images(tmp_path):
    tensors = {}
    for split in ("train", "validation"):
        tensors[f"{split}/inputs/0"] = torch.randn(16, 1, 8, 8)
        tensors[f"{split}/targets/0"] = torch.arange(16) % 2
    path = tmp_path / "images.safetensors"
    save_file(tensors, path)
    return path


def prune(**changes):
    return {"stage": "prune", "allocation": {"amount": 0.5}} | changes


@pytest.fixture(params=["some", pytest.param("all", marks=pytest.mark.exhaustive)])
def points(request):
    """Which checkpoints a test resumes from: all of them, or one within and the last."""

    def chosen(numbers):
        if request.param == "all" or len(numbers) <= 2:
            return list(numbers)
        return sorted({numbers[len(numbers) // 2], numbers[-1]})

    return chosen
