"""Drift, accuracy and loss of a pruned model, with numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from engine.data.splits import Split
from engine.errors import InputsDoNotFit
from engine.scan.measuring import Judge, drawn


def split(inputs, targets=None):
    return Split(
        name="validation",
        inputs=(inputs,),
        input_names=("validation/inputs/0",),
        targets=targets,
        target_name="validation/targets/0",
    )


class Counting:
    """A model, and how often it ran on how many samples."""

    def __init__(self, change, only=None):
        self.change = change
        self.only = only
        self.ran: list[int] = []

    def __call__(self, inputs):
        if self.only is not None and len(inputs[0]) != self.only:
            raise InputsDoNotFit("another batch size")
        self.ran.append(len(inputs[0]))
        return self.change(inputs[0])


ROWS = torch.tensor([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 128])
def test_drift_is_over_all_samples_however_they_are_cut(batch_size):
    # Outputs 3 4 0 0 6 8 of length sqrt(125); one of them moves by 5: 5 / 11.18.
    whole = Counting(lambda x: x)
    moved = Counting(lambda x: x + torch.where(x == 8.0, 5.0, 0.0))
    judge = Judge(whole, split(ROWS), quantity="drift", batch_size=batch_size)
    found = judge.measure(moved)
    assert found.drift == pytest.approx(math.sqrt(25 / 125))
    assert (found.loss, found.accuracy) == (None, None)
    assert sum(moved.ran) == judge.samples == 3


def test_a_single_batch_of_the_whole_model_is_run_once():
    whole = Counting(lambda x: x)
    judge = Judge(whole, split(ROWS), quantity="drift", batch_size=3)
    tried = len(whole.ran)  # whether it takes such batches
    for _ in range(4):
        judge.measure(Counting(lambda x: 2 * x))
    assert len(whole.ran) == tried + 1
    many = Judge(whole, split(ROWS), quantity="drift", batch_size=2)
    tried = len(whole.ran)
    for _ in range(4):
        many.measure(Counting(lambda x: 2 * x))
    assert len(whole.ran) == tried + 4 * 2


def test_the_drift_of_silence_is_its_length_and_of_infinity_is_nothing():
    silent = Judge(Counting(torch.zeros_like), split(ROWS), quantity="drift")
    assert silent.measure(Counting(lambda x: x)).drift == pytest.approx(math.sqrt(125))
    judge = Judge(Counting(lambda x: x), split(ROWS), quantity="drift")
    assert judge.measure(Counting(lambda x: x / 0)).drift is None


@pytest.mark.parametrize("batch_size", [1, 2, 128])
def test_accuracy_and_loss_count_every_sample_once(batch_size):
    # Logits (x, 0): right where the sign of x says class 0 or 1.
    values = torch.tensor([[1.0], [-1.0], [2.0]])
    targets = torch.tensor([0, 1, 1])
    model = Counting(lambda x: torch.cat([x, torch.zeros_like(x)], dim=1))
    judge = Judge(model, split(values, targets), quantity="accuracy", batch_size=batch_size)
    model.ran.clear()
    found = judge.measure(model)
    assert found.accuracy is not None
    assert (found.accuracy.correct, found.accuracy.total) == (2, 3)
    # log(1 + 1/e) twice and log(1 + e^2), over three.
    assert found.loss == pytest.approx((2 * 0.3132617 + 2.1269280) / 3)
    assert found.drift is None
    assert sum(model.ran) == 3


def test_a_baked_batch_size_gets_full_batches_and_no_sample_twice():
    model = Counting(lambda x: x, only=2)
    judge = Judge(model, split(ROWS), quantity="drift", batch_size=128, example_batch=2)
    found = judge.measure(Counting(lambda x: x + torch.where(x == 8.0, 5.0, 0.0), only=2))
    assert found.drift == pytest.approx(math.sqrt(25 / 125))
    assert set(model.ran) == {2}


def test_samples_are_drawn_by_the_seed_and_stay_in_order():
    rows = torch.arange(100.0).reshape(100, 1)
    whole = split(rows, torch.arange(100))
    few = drawn(whole, 10, 3)
    assert few.samples == 10
    assert few.targets is not None
    assert few.targets.tolist() == sorted(few.targets.tolist())
    assert few.inputs[0].flatten().tolist() == few.targets.tolist()
    again, other = drawn(whole, 10, 3), drawn(whole, 10, 4)
    assert torch.equal(again.inputs[0], few.inputs[0])
    assert not torch.equal(other.inputs[0], few.inputs[0])
    assert drawn(whole, None, 3) is whole
    assert drawn(whole, 100, 3) is whole


def test_a_model_that_draws_draws_the_same_beside_itself():
    def noisy(x):
        return x + torch.rand_like(x)

    judge = Judge(Counting(noisy), split(ROWS), quantity="drift", batch_size=2)
    assert judge.measure(Counting(noisy)).drift == 0.0
