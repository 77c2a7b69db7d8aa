from __future__ import annotations

import pytest
import torch
from secateur.recipe_inputs import InputSpec

from engine.data.batches import batches, bounds, shuffled
from engine.data.examples import example_inputs, source_of_examples
from engine.data.splits import Dataset, Split
from engine.errors import InputsDoNotFit
from engine.structure import at_batch_size


def split_of(samples):
    return Split(
        name="train",
        inputs=(torch.arange(samples * 2.0).reshape(samples, 2),),
        input_names=("train/inputs/0",),
        targets=torch.arange(samples, dtype=torch.int32),
        target_name="train/targets/0",
    )


def test_every_sample_once_and_no_lone_last_one():
    assert bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert bounds(9, 4) == [(0, 4), (4, 9)]
    assert bounds(1, 4) == [(0, 1)]
    assert bounds(3, 1) == [(0, 1), (1, 3)]


def test_batches_in_order():
    got = list(batches(split_of(5), 2, device="cpu"))
    assert [batch.size for batch in got] == [2, 3]
    assert torch.cat([batch.inputs[0] for batch in got]).flatten().tolist() == list(range(10))
    assert got[0].targets.dtype == torch.int32  # as in the file


def test_shuffling_keeps_inputs_and_targets_together_and_is_seeded():
    split = split_of(50)

    def run(seed):
        order = shuffled(50, torch.Generator().manual_seed(seed))
        return list(batches(split, 8, device="cpu", order=order))

    one, same, other = run(1), run(1), run(2)
    targets = torch.cat([batch.targets for batch in one])
    rows = torch.cat([batch.inputs[0] for batch in one])
    assert sorted(targets.tolist()) == list(range(50))
    assert torch.equal(rows[:, 0], targets * 2.0)
    assert torch.equal(targets, torch.cat([batch.targets for batch in same]))
    assert not torch.equal(targets, torch.cat([batch.targets for batch in other]))


def test_examples_from_the_recipe_are_seeded_and_bounded():
    specs = [InputSpec(shape=[4, 3]), InputSpec(shape=[4, 7], dtype="int64", high=5)]
    values, ids = example_inputs(specs, None, seed=3, device="cpu")
    again, _ = example_inputs(specs, None, seed=3, device="cpu")
    assert torch.equal(values, again)
    assert ids.dtype == torch.int64
    assert 0 <= int(ids.min()) <= int(ids.max()) < 5
    assert int(ids.max()) > 1


def test_examples_from_the_dataset_prefer_validation():
    train, validation = split_of(4), split_of(2)
    dataset = Dataset(train=train, validation=validation)
    (example,) = example_inputs(None, dataset, seed=0, device="cpu")
    assert torch.equal(example, validation.inputs[0][:1])
    assert source_of_examples(None, dataset) == "train/inputs/0"


def test_no_source_of_examples():
    with pytest.raises(InputsDoNotFit) as caught:
        example_inputs(None, None, seed=0, device="cpu")
    assert caught.value.where == "recipe.inputs"


def test_batch_size_repeats_samples_and_leaves_tables_alone():
    rows, table = torch.arange(2.0).reshape(2, 1), torch.zeros(7, 3)
    bigger, same = at_batch_size((rows, table), 5)
    assert bigger.flatten().tolist() == [0, 1, 0, 1, 0]
    assert same is table
