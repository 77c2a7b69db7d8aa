from __future__ import annotations

import pytest
import torch

from engine.data.fit import check_split
from engine.data.splits import Split
from engine.errors import DatasetInvalid, InputsDoNotFit
from engine.objective.classes import check_classes as check_targets

LOGITS = torch.zeros(1, 3)


def split_of(inputs, targets):
    return Split("train", (inputs,), ("train/inputs/0",), targets, "train/targets/0")


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (torch.tensor([0.0, 1.0]), "dtype float32"),
        (torch.tensor([True, False]), "dtype bool"),
        (torch.tensor([[0, 1], [1, 0]]), "does not fit"),
        (torch.tensor([0, 3]), "class 3; the model has classes 0 to 2"),
        (torch.tensor([-1, 0]), "class -1"),
    ],
)
def test_wrong_targets_are_named(targets, says):
    with pytest.raises(DatasetInvalid) as caught:
        check_targets(LOGITS, targets, "train/targets/0")
    assert says in caught.value.title
    assert caught.value.where == "train/targets/0"
    assert caught.value.hint


def test_right_targets_of_any_integer_type():
    check_targets(LOGITS, torch.tensor([0, 2], dtype=torch.uint8), "t")
    check_targets(torch.zeros(1, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64), "t")


def test_output_without_classes():
    with pytest.raises(DatasetInvalid, match="samples, classes"):
        check_targets(torch.zeros(4), torch.tensor([0]), "t")


def test_inputs_that_do_not_fit_name_the_tensor():
    module = torch.jit.script(torch.nn.Linear(4, 3))
    with pytest.raises(InputsDoNotFit) as caught:
        check_split(module, split_of(torch.zeros(5, 7), None), device="cpu")
    assert caught.value.where == "train/inputs/0"
    assert "float32[1, 7]" in caught.value.hint
    with pytest.raises(InputsDoNotFit, match="dtype"):
        check_split(module, split_of(torch.zeros(5, 4, dtype=torch.int64), None), device="cpu")


def test_output_that_does_not_count_samples():
    module = torch.jit.script(torch.nn.Flatten(0))
    with pytest.raises(DatasetInvalid, match="for 1 samples") as caught:
        check_split(module, split_of(torch.zeros(5, 4), torch.zeros(5).long()), device="cpu")
    assert caught.value.where == "train/targets/0"


def test_several_targets_are_refused_by_cross_entropy():
    split = Split(
        "train",
        (torch.zeros(2, 3),),
        ("train/inputs/0",),
        (torch.tensor([0, 1]), torch.tensor([0, 1])),
        "train/targets/0",
        ("train/targets/1",),
    )
    with pytest.raises(DatasetInvalid, match="2 target tensors") as caught:
        check_split(torch.nn.Identity(), split, device="cpu")
    assert caught.value.where == "train/targets/1"
