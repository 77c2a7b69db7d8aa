"""Steps that find no memory are taken in smaller parts. Memory runs out for real: the program asks
torch for more than any machine has."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from engine.errors import OutOfMemory
from engine.training.evaluation import evaluate
from engine.training.finetune import train
from tests.engine.training.test_epoch import Every, Within, told
from tests.engine.training.test_finetune import (
    Small,
    make_program,
    options,
    run_of,
    same,
    splits,
    weights,
)


class Hungry(nn.Module):
    """Asks for 4 petabytes where it is trained on more samples than it bears."""

    def __init__(self, bears: int) -> None:
        super().__init__()
        self.small = Small()
        self.bears = bears
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += x.shape[0]
        out = self.small(x)
        if self.training and x.shape[0] > self.bears:
            out = out + torch.empty([1 << 50])[0]
        return out


class Heard(Within):
    def __init__(self):
        super().__init__()
        self.remarks = []

    def remark(self, message):
        self.remarks.append(message)


def test_parts_make_the_step_of_accumulated_batches(tmp_path):
    # 16 samples do not fit, 8 do: as batches of 8, two to a step, BatchNorm and dropout included.
    program = make_program(tmp_path / "m.pt", Hungry(8))
    heard, plain = Heard(), Heard()
    found = train(program, run_of(options(batch_size=16)), heard)
    expected = train(program, run_of(options(batch_size=8, accumulate=2)), plain)
    assert same(weights(found.program), weights(expected.program))
    assert float(weights(found.program)["seen"]) == 2 * 256  # what the failed attempt saw is undone
    assert told(heard) == told(plain)
    assert found.remarks == tuple(heard.remarks)
    assert len(heard.remarks) == 1
    assert heard.remarks[0].startswith("out of memory in step 1: batches of 16 are run in parts")
    assert expected.remarks == ()


def test_it_halves_until_it_fits_and_a_resumed_run_knows(tmp_path):
    program = make_program(tmp_path / "m.pt", Hungry(3))
    heard = Heard()
    run = dataclasses.replace(run_of(options(batch_size=32)), pace=Every(3))
    found = train(program, run, heard)
    assert "parts of at most 2 samples" in heard.remarks[0]
    state = heard.within[0]
    assert state.micro_batch == 2
    again = Heard()
    resumed = train(program, run_of(options(batch_size=32)), again, resume=state)
    assert same(weights(found.program), weights(resumed.program))
    assert again.remarks == []  # it does not try what failed before
    assert resumed.remarks == found.remarks


def test_without_room_for_one_sample_it_fails(tmp_path):
    program = make_program(tmp_path / "m.pt", Hungry(0))
    with pytest.raises(OutOfMemory, match=r"not even one sample fits: .*allocate") as caught:
        train(program, run_of(options(batch_size=8)), Heard())
    assert caught.value.where == "recipe.stages.0.batch_size"
    assert "more memory" in caught.value.hint


class Picky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hungry = Hungry(4)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[0] >= 8, "eight at least"
        return self.hungry(x)


def test_a_program_that_takes_no_fewer_says_both(tmp_path):
    program = make_program(tmp_path / "m.pt", Picky())
    with pytest.raises(OutOfMemory, match=r"allocate.*; and with 4 at a time.*eight at least"):
        train(program, run_of(options(batch_size=8)), Heard())


def test_the_gradient_is_that_of_the_whole_batch(tmp_path):
    class Plain(nn.Module):
        def __init__(self, bears: int) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(64, 10)
            self.bears = bears

        def forward(self, x: Tensor) -> Tensor:
            out = self.linear(x.flatten(1))
            return out + torch.empty([1 << 50])[0] if x.shape[0] > self.bears else out

    # 30 samples a batch and parts of 8, 7, 8, 7; without validation, which runs 128 at a time.
    settings = options(batch_size=30, keep="last")
    found, whole = (
        train(
            make_program(tmp_path / f"{bears}.pt", Plain(bears)),
            run_of(settings, validation=False),
            Heard(),
        )
        for bears in (8, 1000)
    )
    one, other = weights(found.program), weights(whole.program)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-6)


class Wide(Hungry):
    """Hungry in evaluation, too."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.small(x)
        return out + torch.empty([1 << 50])[0] if x.shape[0] > self.bears else out


def test_validation_takes_fewer_samples_at_a_time(tmp_path):
    program = make_program(tmp_path / "m.pt", Wide(50))
    whole = evaluate(make_program(tmp_path / "w.pt", Wide(1000)), splits()[1], device="cpu")
    found = evaluate(program, splits()[1], device="cpu")
    assert (found.reduced_to, whole.reduced_to) == (32, None)  # 128, 64, 32
    heard = Heard()
    train(program, run_of(options(epochs=1)), heard)
    assert any("validating epoch 1" in remark for remark in heard.remarks)
    with pytest.raises(OutOfMemory):
        evaluate(make_program(tmp_path / "n.pt", Wide(0)), splits()[1], device="cpu")
