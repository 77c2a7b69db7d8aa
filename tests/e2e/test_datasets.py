"""A zip of images on the command line: uploaded, trained on, and refused by the name of a file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml
from secateur.client import Secateur
from secateur.report import Report

from tests.e2e import models
from tests.e2e.conftest import Run, Server
from tests.engine.data.files import folder_of_images, png, zip_of

_, CHANNELS, *SIZE = models.SHAPE
RECIPE = {
    "data": {
        "images": {"channels": "gray" if CHANNELS == 1 else "rgb"},
        "transforms": {"0": [{"kind": "resize", "size": SIZE}, {"kind": "flip"}]},
    },
    "stages": [
        {"stage": "prune", "allocation": {"amount": 0.5}},
        {"stage": "finetune", "epochs": 1, "batch_size": 4},
    ],
    "measure": {"batch_sizes": [1], "runs": 5},
}


@pytest.mark.exhaustive
def test_images_on_the_command_line(
    secateur: Run, client: Secateur, server: Server, files: Path, tmp_path: Path
) -> None:
    images = folder_of_images(("dog", "cat"), each=5, size=(7, 9)) | {
        "train/cat/colour.png": png(3, mode="RGB")
    }
    zip_of(tmp_path / "images.zip", images)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    command = ("compress", str(files / "small.pt"), "--recipe", "recipe.yaml", "--data")

    done = secateur(*command, "images.zip", "--out", "out")
    assert done.returncode == 0, done.stderr
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert report.after.accuracy is not None
    assert report.after.accuracy.total == 10
    dataset = next(iter(client.datasets()))
    assert (dataset.format, dataset.splits) == ("zip", {"train": 11, "validation": 10})
    assert dataset.tensors[1].classes == ["cat", "dog"]

    with zipfile.ZipFile(tmp_path / "images.zip", "a") as archive:
        archive.writestr("train/cat/broken.png", png()[:-20])
        archive.writestr("train/fox/1.png", png())
    done = secateur(*command, "images.zip", "--out", "other")
    assert done.returncode != 0
    assert "validation/fox" in done.stderr
    assert not (tmp_path / "other").exists()
