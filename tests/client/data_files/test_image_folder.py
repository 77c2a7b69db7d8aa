from __future__ import annotations

import pytest
from secateur.data_files.faults import DataFault
from secateur.data_files.image_folder import image_folder

NAMES = ["train/b/2.png", "train/b/1.png", "train/a/x.jpg", "validation/a/1.JPEG"]


def test_classes_and_samples_are_sorted():
    found = image_folder([*NAMES, "validation/b/deep/2.png", "unlabelled/z.png"])
    assert found.classes == ("a", "b")
    assert found.splits["train"] == ("train/a/x.jpg", "train/b/1.png", "train/b/2.png")
    assert found.targets == {"train": (0, 1, 1), "validation": (0, 1)}
    assert found.splits["unlabelled"] == ("unlabelled/z.png",)


def test_one_split_is_enough():
    assert image_folder(["validation/a/1.png"]).targets == {"validation": (0,)}


@pytest.mark.parametrize(
    ("names", "folders", "where", "says"),
    [
        (NAMES, [], "validation/b", "class `b` of `train` is missing in `validation`"),
        (["train/a/1.png"], ["train/a/", "train/b/"], "train/b", "is empty"),
        (["train/a/1.gif"], [], "train/a/1.gif", "no PNG or JPEG"),
        (["a/1.png"], [], "a/1.png", "no class folder"),
        (["unlabelled/1.png"], [], "train", "no image in `train/<class>/`"),
        ([], [], "train", "no image"),
    ],
)
def test_folders_that_make_no_dataset(names, folders, where, says):
    with pytest.raises(DataFault) as caught:
        image_folder(names, folders)
    assert caught.value.where == where
    assert says in caught.value.message
    assert caught.value.hint
