from __future__ import annotations

import pytest
import torch

from engine.data.batches import batches
from engine.data.columns import Chosen, Joined, map_columns, rows_of, span_of
from engine.data.draws import Draw
from engine.data.splits import Dataset, Split
from engine.errors import DatasetInvalid
from tests.engine.data.test_prefetch import Counted

INPUTS = torch.arange(8.0).reshape(4, 2)


def split_of(targets, name="train"):
    return Split(name, (INPUTS,), (f"{name}/inputs/0",), targets, f"{name}/targets/0")


def test_rows_of_tensors_are_views_in_order_and_gathered_otherwise():
    split = split_of(torch.arange(4))
    (span,), targets, _ = split.span(1, 3)
    assert span.data_ptr() == INPUTS[1:].data_ptr()
    assert targets.tolist() == [1, 2]
    (rows,), targets, _ = split.rows(torch.tensor([3, 0]))
    assert rows.tolist() == [[6, 7], [0, 1]]
    assert targets.tolist() == [3, 0]


def test_several_targets_come_as_a_tuple_in_their_own_types():
    split = split_of((torch.arange(4), torch.arange(4.0) / 2))
    (batch, _) = batches(split, 2, device="cpu")
    assert [target.dtype for target in batch.targets] == [torch.int64, torch.float32]
    assert batch.targets[1].tolist() == [0.0, 0.5]
    assert split.target_names == ("train/targets/0",)


def test_chosen_rows_of_a_column_are_read_when_asked_for():
    column = Counted(10)
    split = Split("train", (column,), ("x",), torch.arange(10), "y")
    part = split.chosen(torch.tensor([7, 2, 5]))
    assert column.asked == []
    assert part.samples == 3
    (rows,), targets, _ = part.span(1, 3)
    assert rows.flatten().tolist() == [2, 5]
    assert targets.tolist() == [2, 5]
    assert isinstance(part.inputs[0], Chosen)


def test_joined_columns_keep_the_order_that_is_asked_for():
    joined = Joined(torch.tensor([1, 2]), torch.tensor([3, 4, 5]))
    assert joined.samples == 5
    assert rows_of(joined, torch.tensor([4, 0, 2, 1])).tolist() == [5, 1, 3, 2]
    assert span_of(joined, 0, 2).tolist() == [1, 2]
    assert span_of(joined, 3, 5).tolist() == [4, 5]


def test_unlabelled_samples_come_after_labelled_ones_and_say_so():
    more = Split("unlabelled", (INPUTS[:2] + 100,), ("u",), None, "")
    both = split_of(torch.tensor([1, 2, 3, 4])).with_unlabelled(more)
    assert both.samples == 6
    (batch,) = batches(both, 6, device="cpu", order=torch.tensor([5, 0, 3, 4, 1, 2]))
    assert batch.labelled.tolist() == [False, True, True, False, True, True]
    assert batch.targets[batch.labelled].tolist() == [1, 4, 2, 3]
    assert batch.inputs[0][0].tolist() == [102, 103]
    assert next(batches(both, 3, device="cpu")).labelled.all()


def test_a_number_of_a_sample_depends_on_nothing_but_its_purpose_and_row():
    draw = Draw.of(3, "stages/0", 1)
    rows = torch.arange(1000)
    whole = draw.uniform(rows, 0)
    assert torch.equal(draw.uniform(rows[[5, 2]], 0), whole[[5, 2]])
    assert 0 <= float(whole.min()) < float(whole.max()) < 1
    # 1000 uniform numbers have a mean of 0.5 with a deviation of 0.009
    assert abs(float(whole.mean()) - 0.5) < 0.05
    for other in (Draw.of(4, "stages/0", 1), Draw.of(3, "stages/0", 2), Draw.of(3, "stages/1", 1)):
        assert abs(float(torch.corrcoef(torch.stack([whole, other.uniform(rows, 0)]))[0, 1])) < 0.15
    assert abs(float(torch.corrcoef(torch.stack([whole, draw.uniform(rows, 1)]))[0, 1])) < 0.15
    assert set(draw.integers(rows, 0, 3).tolist()) == {0, 1, 2}


def test_a_missing_split_is_named_with_what_needs_it():
    dataset = Dataset(train=split_of(None), validation=None)
    with pytest.raises(DatasetInvalid, match="no `unlabelled` split") as caught:
        dataset.require_inputs("unlabelled", "recipe.stages.0")
    assert caught.value.where == "unlabelled/inputs/0"


def test_structure_around_columns_is_kept():
    tree = {"a": [INPUTS, Counted(4)], "b": (3, None)}
    found = map_columns(tree, lambda column: span_of(column, 0, 1))
    assert found["a"][1].tolist() == [[0.0]]
    assert found["b"] == (3, None)
