"""One job on every format of docs/datasets.md, on the files that its own examples write."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from secateur.recipe import Recipe
from torch import nn

from engine.errors import DatasetInvalid
from engine.job import JobInput
from engine.pipeline import compress
from tests.engine.digits import Recorder, save_scripted
from tests.engine.pipeline.conftest import QUICK

PAGE = (Path(__file__).parents[3] / "docs/datasets.md").read_text(encoding="utf-8")
PLAIN = {
    "stages": [
        {"stage": "prune", "allocation": {"amount": 0.5}},
        {"stage": "finetune", "epochs": 1, "optimizer": {"lr": 0.01}},
    ]
}


def recipe_with(word):
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    recipes = [yaml.safe_load(block) for block in blocks]
    return next(recipe for recipe in recipes if word in recipe["data"])


RECIPES = {
    "data.safetensors": PLAIN,
    "data.npz": PLAIN,
    "images.zip": recipe_with("images"),
    "shards.tar": PLAIN,
    "table.parquet": recipe_with("columns"),
    "table.arrow": recipe_with("columns"),
    "tokens.npz": recipe_with("tokens"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(compile(block, "docs/datasets.md", "exec"), {})  # noqa: S102
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    image = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    text = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 50))
    return {
        "image": save_scripted(image.eval(), folder / "image.pt"),
        "text": save_scripted(text.eval(), folder / "text.pt"),
    }


def run(models, data, workdir, recipe):
    workdir.mkdir()
    plain = Recipe.model_validate({**recipe, "measure": QUICK})
    model = models["text" if data.name == "tokens.npz" else "image"]
    heard = Recorder()
    job = JobInput(model=model, recipe=plain, workdir=workdir, dataset=data)
    return compress(job, heard), heard


SAMPLED = ("images.zip", "table.parquet", "tokens.npz")
CASES = [
    name if name in SAMPLED else pytest.param(name, marks=pytest.mark.exhaustive)
    for name in RECIPES
]


@pytest.mark.parametrize("name", CASES)
def test_a_job_of_every_format(files, models, tmp_path, name):
    result, heard = run(models, files / name, tmp_path / "work", RECIPES[name])
    report = result.report
    assert report.certificate.passed
    assert report.after.parameters < report.before.parameters
    assert report.after.loss is not None
    assert any(metric[0] == "train/loss" for metric in heard.metrics)
    if name == "images.zip":
        assert any("cat, dog, fox" in str(log) for log in heard.logs)


def test_a_corrupt_image_ends_the_job_by_its_name(files, models, tmp_path):
    path = tmp_path / "images.zip"
    shutil.copy(files / "images.zip", path)
    with zipfile.ZipFile(path, "a") as archive:
        whole = archive.read("train/cat/1.png")
        archive.writestr("train/cat/9.png", whole[: len(whole) // 2])
    with pytest.raises(DatasetInvalid) as caught:
        run(models, path, tmp_path / "work", RECIPES["images.zip"])
    assert caught.value.where == "train/cat/9.png"
