from __future__ import annotations

import numpy as np
import pytest
import torch
import webdataset
from secateur.data_files.shards import samples_of_shards
from secateur.recipe_data import Data
from webdataset.tariterators import group_by_keys

from engine.data.opening import open_dataset
from engine.errors import DatasetInvalid
from tests.engine.data.files import npy, packed, png, tar_bytes, zip_of


def opened(path, scratch=None, **data):
    return open_dataset(path, ["x", "y"], data=Data.model_validate(data), scratch=scratch)


def sample(split, number, extension="png"):
    key = f"{split}/{number:03}"
    return {f"{key}.{extension}": png(number), f"{key}.cls": str(number % 3).encode()}


def samples(split, numbers):
    return {name: data for number in numbers for name, data in sample(split, number).items()}


def check(dataset):
    (inputs,), targets, _ = dataset.train.span(0, 4)
    assert (inputs[:, 0, 0, 0] * 255).round().tolist() == [0, 1, 2, 3]
    assert targets.tolist() == [0, 1, 2, 0]
    assert dataset.validation.samples == 2


def test_one_tar(tmp_path):
    check(
        opened(
            packed(
                tmp_path / "data.tar", samples("train", range(4)) | samples("validation", [5, 6])
            )
        )
    )


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_shards_in_an_archive(tmp_path, suffix):
    shards = {
        "train/0.tar": tar_bytes(samples("a", [0, 1])),
        "train/1.tar": tar_bytes(samples("a", [2, 3])),
        "validation/0.tar": tar_bytes(samples("b", [5, 6])),
    }
    path = tmp_path / f"data.{suffix}"
    check(opened(packed(path, shards) if suffix == "tar" else zip_of(path, shards, 0)))


def test_what_the_library_writes_is_what_is_read(tmp_path):
    shard = tmp_path / "shard.tar"
    with webdataset.TarWriter(str(shard)) as writer:
        for number in range(5):
            pixels = np.full((4, 4, 3), number, np.uint8)
            writer.write({"__key__": f"{number:04}", "png": pixels, "cls": number})
    dataset = opened(packed(tmp_path / "data.tar", {"train/0.tar": shard.read_bytes()}))
    own = (
        webdataset.WebDataset(str(shard), shardshuffle=False)
        .decode("torchrgb")
        .to_tuple("png", "cls")
    )
    for row, (pixels, number) in enumerate(own):
        (mine,), target, _ = dataset.train.span(row, row + 1)
        assert torch.equal(mine[0], pixels)
        assert target.item() == number


def test_arrays_and_named_columns(tmp_path):
    files = {}
    for number in range(3):
        files[f"train/{number}.inputs.0.npy"] = npy(np.full((2, 2), number, np.float32))
        files[f"train/{number}.inputs.1.npy"] = npy(np.arange(3) + number)
        files[f"train/{number}.targets.0.npy"] = npy(np.float32(number / 2))
        files[f"train/{number}.seg.png"] = png(number)
    path = packed(tmp_path / "data.tar", files)
    dataset = opened(path, tmp_path / "a")
    (first, second), targets, _ = dataset.train.rows(torch.tensor([2, 0]))
    assert first[:, 0, 0].tolist() == [2, 0]
    assert second.tolist() == [[2, 3, 4], [0, 1, 2]]
    assert targets.tolist() == [1.0, 0.0]
    named = opened(
        path, tmp_path / "b", columns={"inputs/0": "inputs.0.npy", "targets/0": "seg.png"}
    )
    assert named.train.span(0, 3)[1].shape == (3, 1, 4, 4)


def test_the_gate_and_the_library_put_the_same_files_together():
    names = ["train/a.png", "train/a.cls", "train/b.x/c.JPG", "train/b.x/c.seg.png", "train/d.cls"]
    theirs = [
        {key: place for key, place in one.items() if not key.startswith("__")}
        for one in group_by_keys(
            [{"fname": name, "data": place, "__url__": ""} for place, name in enumerate(names)]
        )
    ]
    assert [one.files for one in samples_of_shards(names)] == theirs


def refused(path, scratch=None, **data):
    with pytest.raises(DatasetInvalid) as caught:
        opened(path, scratch, **data)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"train/002.png": None}, "train/002", "has no file `.png`"),
        ({"train/001.cls": None}, "train/001", "has no file `.cls`"),
        ({"train/001.cls": b"cat"}, "train/001.cls", "no whole number"),
        ({"train/009": b"x"}, "train/009", "no extension"),
        ({"other/009.png": png()}, "other/009.png", "belongs to no split"),
    ],
)
def test_samples_that_lack_files_are_named(tmp_path, change, where, says):
    files = samples("train", range(4)) | change
    files = {name: data for name, data in files.items() if data is not None}
    error = refused(packed(tmp_path / "data.tar", files))
    assert error.where == where
    assert says in error.title


def test_arrays_that_differ_or_are_pickles(tmp_path):
    files = {
        "train/0.inputs.0.npy": npy(np.zeros(2)),
        "train/1.inputs.0.npy": npy(np.zeros(3)),
    }
    error = refused(packed(tmp_path / "data.tar", files), tmp_path / "a")
    assert "train/1.inputs.0.npy" in error.title
    files = {"train/0.inputs.0.npy": npy(np.array([{}], dtype=object))}
    assert "no array of numbers" in refused(packed(tmp_path / "o.tar", files), tmp_path / "b").title


def test_a_shard_squeezed_by_its_zip(tmp_path):
    shard = tar_bytes(samples("a", range(9)))
    assert "zip -0" in refused(packed(tmp_path / "d.zip", {"train/0.tar": shard})).hint
