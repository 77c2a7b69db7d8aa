from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from engine.data.batches import bounds
from engine.data.splits import Split
from engine.training.accumulation import micro_batches, steps_of_an_epoch
from engine.training.finetune import finetune, train
from engine.training.movement import MovementRecord
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    weights,
)

PLAIN = {"kind": "sgd", "lr": 0.5, "momentum": 0.9, "weight_decay": 0.01}


def test_shares_by_hand():
    # 11 samples in fours: 4, 4, 3. By three all are one step, by two the last is a step of its own.
    of = micro_batches(options(batch_size=4, accumulate=3), 11)
    assert [one.share for one in of] == pytest.approx([4 / 11, 4 / 11, 3 / 11])
    assert [(one.step, one.first, one.last) for one in of] == [
        (0, True, False),
        (0, False, False),
        (0, False, True),
    ]
    of = micro_batches(options(batch_size=4, accumulate=2), 11)
    assert [one.share for one in of] == [0.5, 0.5, 1.0]
    assert [(one.step, one.first, one.last) for one in of] == [
        (0, True, False),
        (0, False, True),
        (1, True, True),
    ]
    # 9 samples: the lone last one joins the second four.
    of = micro_batches(options(batch_size=4, accumulate=2), 9)
    assert [one.share for one in of] == pytest.approx([4 / 9, 5 / 9])


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("together", [1, 2, 3, 5])
def test_the_steps_are_those_of_larger_batches(size, together):
    for samples in range(1, 40):
        settings = options(batch_size=size, accumulate=together)
        large = bounds(samples, size * together)
        assert steps_of_an_epoch(settings, samples) == len(large)
        of = micro_batches(settings, samples)
        sizes = [stop - start for start, stop in bounds(samples, size)]
        for step, (start, stop) in enumerate(large):
            inside = [number for number, one in enumerate(of) if one.step == step]
            assert sum(sizes[number] for number in inside) == stop - start
            for number in inside:
                assert of[number].share == pytest.approx(sizes[number] / (stop - start))


class Scalar(nn.Module):
    """Two logits, w x and 0: the gradient of the loss is x (p - 1) for class 0, x p for 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = x.matmul(self.w)
        return torch.cat([first, torch.zeros_like(first)], dim=1)


def test_a_step_by_hand(tmp_path):
    # w = 0, so p = 1/2 everywhere. Class 0 for all: the gradient of sample x is -x / 2.
    # In batches of 2 and 3 (the lone fifth joins): whatever the order, the mean over all five is
    # -(1 + 2 + 3 + 4 + 10) / 5 / 2 = -2, and lr 0.5 moves w to 1. Means of means, or sums of
    # them, would depend on the order and miss it.
    program = make_program(tmp_path / "m.pt", Scalar())
    inputs = torch.tensor([[1.0], [2.0], [3.0], [4.0], [10.0]])
    split = Split("train", (inputs,), ("train/inputs/0",), torch.zeros(5).long(), "t")
    plain = {"kind": "sgd", "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}
    settings = options(epochs=1, batch_size=2, accumulate=2, optimizer=plain)
    for seed in range(4):
        run = dataclasses.replace(run_of(settings, seed=seed), train=split, validation=None)
        assert run.per_epoch == 1
        after = finetune(program, run, Observer()).parameters()["w"]
        assert float(after) == pytest.approx(1.0, abs=1e-6)


class NoStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.linear = nn.Linear(4 * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(x)).flatten(1))


def test_equals_larger_batches(tmp_path):
    # 256 samples in 40s are 6 batches and one of 16: steps of 80, 80, 80 and 16.
    program = make_program(tmp_path / "m.pt", NoStatistics())
    mask = {"linear.weight": torch.rand(10, 144, generator=torch.Generator().manual_seed(0)) > 0.5}
    both = {"epochs": 3, "optimizer": PLAIN, "warmup_epochs": 1, "clip_norm": 0.5}
    both["penalty"] = {"l1": 1e-3}
    one, other = Observer(), Observer()
    large = finetune(program, run_of(options(**both, batch_size=80), mask), one)
    small = finetune(program, run_of(options(**both, batch_size=40, accumulate=2), mask), other)
    for name, tensor in large.parameters().items():
        torch.testing.assert_close(small.parameters()[name], tensor, rtol=0, atol=2e-5)
    assert other.steps == one.steps
    assert one.steps[-1] == (12, 12, "steps")
    assert other.values("lr") == one.values("lr")
    assert other.values("train/loss") == pytest.approx(one.values("train/loss"), rel=1e-4)


def test_rules_are_asked_once_a_step(tmp_path):
    class Asked(MovementRecord):
        def change(self, program, optimizer, masks, moment):
            del program, optimizer, masks
            moments.append((moment.step, moment.per_epoch, moment.steps))

    moments: list[tuple[int, int, int]] = []
    program = make_program(tmp_path / "m.pt")
    run = run_of(options(epochs=2, batch_size=40, accumulate=3))
    train(program, dataclasses.replace(run, sparsity=Asked()), Observer())
    # 7 batches: 3, 3 and 1
    assert moments == [(step, 3, 6) for step in range(6)]


def test_a_training_cut_between_steps_goes_on_from_there(tmp_path):
    program = make_program(tmp_path / "m.pt", NoStatistics())
    settings = options(
        epochs=2, batch_size=40, accumulate=3, keep="last", optimizer=PLAIN | {"momentum": 0.0}
    )
    whole = weights(finetune(program, run_of(settings), Observer()))
    until = finetune(program, dataclasses.replace(run_of(settings), stop_step=4), Observer())
    after = finetune(until, dataclasses.replace(run_of(settings), first_step=4), Observer())
    assert not same(weights(until), whole)
    assert same(weights(after), whole)


def test_resuming_gives_the_same_bits(tmp_path):
    program = make_program(tmp_path / "m.pt")
    run = run_of(options(epochs=3, batch_size=20, accumulate=4))
    observer = Observer()
    whole = weights(finetune(program, run, observer))
    for state in observer.states:
        assert same(whole, weights(finetune(program, run, Observer(), resume=state)))
