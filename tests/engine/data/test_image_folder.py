from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from secateur.recipe_data import Data

from engine.data import images
from engine.data.batches import batches
from engine.data.opening import open_dataset
from engine.errors import DatasetInvalid
from tests.engine.data.files import folder_of_images, packed, png, tar_bytes


def opened(path, **data):
    return open_dataset(path, ["x"], data=Data.model_validate(data))


def refused(path, **data):
    def read():
        for split in opened(path, **data).splits:
            list(batches(split, 2, device="cpu"))

    with pytest.raises(DatasetInvalid) as caught:
        read()
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_classes_are_folders_in_sorted_order_and_pixels_are_fractions(tmp_path, suffix):
    files = folder_of_images(("dog", "cat", "ant"))
    dataset = opened(packed(tmp_path / f"data.{suffix}", files))
    assert dataset.classes == ("ant", "cat", "dog")
    (inputs,), targets, _ = dataset.train.span(0, 6)
    assert targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert inputs.shape == (6, 1, 4, 4)
    # `dog` was written first, with values 0 and 1 of 255
    assert (inputs[:, 0, 0, 0] * 255).round().tolist() == [20, 21, 10, 11, 0, 1]
    assert inputs.dtype == torch.float32
    assert dataset.validation.samples == 6


def test_colours_jpeg_and_unlabelled_images(tmp_path):
    files = {
        "train/a/1.jpg": png(200, mode="RGB", kind="JPEG"),
        "train/a/2.JPEG": png(100, mode="RGB", kind="JPEG"),
        "unlabelled/7.png": png(50, mode="RGB"),
        "unlabelled/more/8.png": png(60, mode="RGB"),
        "__MACOSX/train/._1.jpg": b"",
        "train/.DS_Store": b"",
    }
    dataset = opened(packed(tmp_path / "data.zip", files))
    (inputs,), _, _ = dataset.train.span(0, 2)
    assert inputs.shape == (2, 3, 4, 4)
    assert torch.allclose(inputs[0] * 255, torch.tensor(200.0), atol=2)
    assert dataset.unlabelled.samples == 2
    assert dataset.unlabelled.targets is None


def test_pixels_are_in_place(tmp_path):
    array = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(array, "RGB").save(tmp_path / "a.png")
    pixels = images.decode((tmp_path / "a.png").read_bytes(), "a.png", "as_stored")
    assert torch.equal(pixels, torch.from_numpy(array).permute(2, 0, 1))


def test_threads_keep_the_order(tmp_path):
    files = folder_of_images(("a",), each=40)
    column = opened(packed(tmp_path / "data.tar", files)).train.inputs[0].source
    many = images.ImageFiles(column.archive, column.members, "as_stored", 1, threads=4)
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(many.take(rows), column.take(rows))


def test_a_corrupt_image_is_named(tmp_path):
    files = folder_of_images()
    files["train/cat/1.png"] = files["train/cat/1.png"][:40]
    error = refused(packed(tmp_path / "data.zip", files))
    assert error.where == "train/cat/1.png"
    assert "not a readable" in error.title


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"train/cat/x.png": png(1, mode="RGB")}, "train/cat/x.png", "3 channels"),
        ({"train/fox/1.png": png()}, "validation/fox", "missing in `validation`"),
        ({"validation/fox/1.png": png()}, "train/fox", "missing in `train`"),
        ({"train/1.png": png()}, "train/1.png", "no class folder"),
        ({"test/cat/1.png": png()}, "test/cat/1.png", "no class folder"),
        ({"train/cat/9.png": png(mode="P")}, "train/cat/9.png", "stored as P"),
    ],
)
def test_files_out_of_place_are_named(tmp_path, change, where, says):
    error = refused(packed(tmp_path / "data.zip", folder_of_images() | change))
    assert error.where == where
    assert says in error.title


def test_mixed_channels_are_made_alike_when_asked_for(tmp_path):
    files = folder_of_images() | {
        "train/cat/x.png": png(1, mode="RGB"),
        "train/cat/y.png": png(1, mode="P"),
    }
    dataset = opened(packed(tmp_path / "data.zip", files), images={"channels": "gray"})
    assert dataset.train.span(0, 6)[0][0].shape == (6, 1, 4, 4)


def test_sizes_differ_until_they_are_resized(tmp_path):
    files = folder_of_images() | {"train/cat/wide.png": png(1, (8, 4))}
    path = packed(tmp_path / "data.zip", files)
    error = refused(path)
    assert "train/cat/wide.png" in error.title
    assert "resize" in error.hint
    dataset = opened(path, transforms={"x": [{"kind": "resize", "size": [3, 5]}]})
    assert dataset.train.span(0, 5)[0][0].shape == (5, 1, 3, 5)


def test_an_image_is_measured_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 15)
    error = refused(packed(tmp_path / "data.zip", folder_of_images()))
    assert "4 x 4 pixels" in error.title


def test_sixteen_bits_are_refused_rather_than_clipped(tmp_path):
    files = folder_of_images() | {"train/cat/0.png": png(300, mode="I;16")}
    assert "stored as I;16" in refused(packed(tmp_path / "d.zip", files)).title


def test_damaged_archives(tmp_path):
    path = tmp_path / "data.tar"
    path.write_bytes(tar_bytes(folder_of_images())[:700])
    assert "cut off" in refused(path).title
    path = tmp_path / "data.zip"
    path.write_bytes(b"PK\x03\x04 nothing")
    assert "not a readable zip" in refused(path).title
