from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.data.opening import open_dataset
from engine.errors import DatasetInvalid

INPUTS = torch.arange(12.0).reshape(6, 2)
TARGETS = torch.tensor([0, 1, 0, 1, 0, 1])


def written(tmp_path, tensors, suffix="safetensors"):
    path = tmp_path / f"data.{suffix}"
    if suffix == "npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        save_file(tensors, path)
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_reads_splits(tmp_path, suffix):
    path = written(
        tmp_path,
        {
            "train/inputs/0": INPUTS,
            "train/targets/0": TARGETS,
            "validation/inputs/0": INPUTS[:2].clone(),
        },
        suffix,
    )
    dataset = open_dataset(path, ["x"])
    (inputs,), targets, labelled = dataset.train.span(0, 6)
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(targets, TARGETS)
    assert labelled is None
    assert dataset.validation.samples == 2
    assert dataset.validation.targets is None


def test_arguments_by_name_and_by_position_come_in_order_of_forward(tmp_path):
    path = written(tmp_path, {"train/inputs/mask": INPUTS * 0, "train/inputs/0": INPUTS})
    dataset = open_dataset(path, ["ids", "mask"])
    assert dataset.train.input_names == ("train/inputs/0", "train/inputs/mask")
    assert torch.equal(dataset.train.inputs[1], INPUTS * 0)


def refused(path, arguments=("x",)):
    with pytest.raises(DatasetInvalid) as caught:
        open_dataset(path, list(arguments))
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("tensors", "where", "says"),
    [
        ({"train/images/0": INPUTS}, "train/images/0", "means nothing"),
        ({"train/inputs/0": INPUTS[:0]}, "train/inputs/0", "empty"),
        (
            {"train/inputs/0": INPUTS, "train/targets/0": TARGETS[:3].clone()},
            "train/targets/0",
            "3 samples",
        ),
        ({"train/inputs/3": INPUTS}, "train/inputs/3", "names no argument"),
        ({"train/inputs/y": INPUTS}, "train/inputs/y", "names no argument"),
        ({"train/targets/0": TARGETS}, "train/inputs/0", "no input for argument 0"),
        (
            {
                "train/inputs/0": INPUTS,
                "train/targets/0": TARGETS,
                "train/targets/1": TARGETS[:3].clone(),
            },
            "train/targets/1",
            "3 samples",
        ),
        ({"unlabelled/targets/0": TARGETS}, "unlabelled/targets/0", "means nothing"),
        ({"train/inputs/0": torch.tensor(1.0)}, "train/inputs/0", "single number"),
        ({}, "data.safetensors", "no tensors"),
    ],
)
def test_bad_content_names_the_tensor(tmp_path, tensors, where, says):
    error = refused(written(tmp_path, tensors))
    assert error.where == where
    assert says in error.title


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_truncated_file(tmp_path, suffix):
    path = written(tmp_path, {"train/inputs/0": INPUTS}, suffix)
    path.write_bytes(path.read_bytes()[:-20])
    error = refused(path)
    assert error.where == path.name
    assert "not a readable" in error.title


def test_npz_of_python_objects(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **{"train/inputs/0": np.array([{}, {}], dtype=object)})
    assert "not a readable npz" in refused(path).title


def test_npz_of_strings_names_the_array(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **{"train/inputs/0": np.array(["a", "b"])})
    assert refused(path).where == "train/inputs/0"


def test_missing_split_and_targets_name_what_needs_them(tmp_path):
    dataset = open_dataset(written(tmp_path, {"validation/inputs/0": INPUTS}), ["x"])
    with pytest.raises(DatasetInvalid, match=r"no `train` split, which `stages.1` needs"):
        dataset.require("train", "stages.1")
    with pytest.raises(DatasetInvalid, match="no targets") as caught:
        dataset.require("validation", "constraints.max_accuracy_drop")
    assert caught.value.where == "validation/targets/0"
