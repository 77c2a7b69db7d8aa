"""Values of a dataset that are no numbers, named by tensor and row."""

from __future__ import annotations

import math

import pytest
import torch
from secateur.recipe_objective import ObjectiveOptions

from engine.data import fit
from engine.data.fit import check_split
from engine.data.splits import Split
from engine.errors import DatasetInvalid
from engine.objective.objective import resolve

REGRESSION = resolve(ObjectiveOptions(loss="mse"))


def split_of(inputs, targets):
    return Split("train", (inputs,), ("train/inputs/0",), targets, "train/targets/0")


@pytest.fixture(autouse=True)
def _few_rows_at_a_time(monkeypatch):
    # Rows in later pieces must be found and counted as well.
    monkeypatch.setattr(fit, "_ROWS", 4)


@pytest.mark.parametrize(
    ("value", "said"), [(math.nan, "NaN"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_a_target_that_is_no_number(value, said):
    targets = torch.zeros(11, 2)
    targets[9, 1] = value
    with pytest.raises(DatasetInvalid, match=f"`train/targets/0` holds {said} in row 9") as caught:
        check_split(
            torch.nn.Identity(), split_of(torch.zeros(11, 2), targets), device="cpu",
            objective=REGRESSION,
        )  # fmt: skip
    assert caught.value.where == "train/targets/0"


@pytest.mark.parametrize(("value", "said"), [(math.nan, "NaN"), (math.inf, "inf")])
def test_an_input_that_is_no_number(value, said):
    inputs = torch.zeros(11, 2)
    inputs[6, 0] = value
    with pytest.raises(DatasetInvalid, match=f"`train/inputs/0` holds {said} in row 6"):
        check_split(torch.nn.Identity(), split_of(inputs, None), device="cpu")


def test_minus_infinity_in_an_input_is_a_mask_and_a_remark():
    inputs = torch.zeros(11, 2)
    inputs[6:, 0] = -math.inf
    remarks = check_split(torch.nn.Identity(), split_of(inputs, None), device="cpu")
    assert len(remarks) == 1
    assert "`train/inputs/0` holds minus infinity, first in row 6" in remarks[0]


def test_classes_are_counted_over_all_rows():
    targets = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 2])
    split = split_of(torch.zeros(9, 4), targets)
    remarks = check_split(torch.nn.Identity(), split, device="cpu")
    assert remarks == [
        "`train/targets/0` has no target of classes 1, 3: the train split says nothing of them"
    ]
    late = split_of(torch.zeros(9, 4), torch.tensor([0, 1, 2, 3, 0, 0, 0, 0, 4]))
    with pytest.raises(DatasetInvalid, match="class 4; the model has classes 0 to 3") as caught:
        check_split(torch.nn.Identity(), late, device="cpu")
    assert "row 8" in caught.value.hint


def test_many_missing_classes_are_counted():
    split = split_of(torch.zeros(3, 50), torch.zeros(3).long())
    (remark,) = check_split(torch.nn.Identity(), split, device="cpu")
    assert "classes 1, 2, 3, 4, 5, 6, 7, 8 and 41 more" in remark


def test_a_split_whose_targets_are_all_ignored_is_refused():
    objective = resolve(ObjectiveOptions(ignore_index=7))
    split = split_of(torch.zeros(3, 2), torch.full((3,), 7))
    with pytest.raises(DatasetInvalid, match="every target of `train/targets/0` is ignored"):
        check_split(torch.nn.Identity(), split, device="cpu", objective=objective)


def test_of_several_targets_the_chosen_one_is_checked():
    targets = (torch.zeros(3, 2), torch.tensor([0, 1, 5]))
    split = Split(
        "train", (torch.zeros(3, 2),), ("train/inputs/0",), targets, "train/targets/0",
        ("train/targets/1",),
    )  # fmt: skip
    objective = resolve(ObjectiveOptions(target=1))
    with pytest.raises(DatasetInvalid, match="`train/targets/1` holds class 5"):
        check_split(torch.nn.Identity(), split, device="cpu", objective=objective)
    with pytest.raises(DatasetInvalid, match="names no target of the `train` split"):
        check_split(
            torch.nn.Identity(), split, device="cpu", objective=resolve(ObjectiveOptions(target=2))
        )
    check_split(
        torch.nn.Identity(), split, device="cpu",
        objective=resolve(ObjectiveOptions(loss="mse", target=0)),
    )  # fmt: skip
