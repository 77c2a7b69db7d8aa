"""Values rounded in the graph, by hand; and trained through."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.torchscript.fake_quantise import Rounded, buffers_of, grids_of, with_fake_quantise
from engine.torchscript.instructions import walk
from engine.torchscript.modes import evaluation_copy, training_copy
from engine.torchscript.program import Program
from engine.training.finetune import train
from tests.engine.digits import save_scripted
from tests.engine.training.test_epoch import resumed_everywhere
from tests.engine.training.test_finetune import Observer, make_program, options, run_of


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, x: Tensor, doubled: bool) -> tuple[Tensor, Tensor]:
        y = x * self.weight
        if doubled:
            z = y.relu()
            z = z + z
        else:
            z = y
        return z, y


@pytest.fixture
def branching(tmp_path) -> Program:
    return Program.load(save_scripted(Branching(), tmp_path / "m.pt"))


def values_of(program, *kinds):
    return [one.outputs[0] for one in walk(program.block) if one.kind in kinds]


def test_rounded_for_whoever_reads_it_later(branching):
    # steps of 1/2 from -1 to 2.75, so zero is 2
    (product,) = values_of(branching, "aten::mul")
    points = {"product": Rounded(product, -1.0, 6.5, smallest=0, largest=15)}
    fake = with_fake_quantise(branching, points)
    assert grids_of(fake, points)["product"].scale == 0.5
    assert grids_of(fake, points)["product"].zero_point == 2
    x = torch.tensor([0.6, 1.9])  # products 0.6 and 3.8
    z, y = fake.run([x, False])
    assert y.tolist() == z.tolist() == [0.5, 4.0]
    z, y = fake.run([torch.tensor([-5.0, 5.0]), True])
    assert y.tolist() == [-1.0, 6.5]  # cut off
    assert z.tolist() == [0.0, 13.0]
    assert branching.run([x, False])[1].tolist() == pytest.approx([0.6, 3.8])


def test_inputs_and_values_in_branches(branching):
    (relu,) = values_of(branching, "aten::relu")
    points = {
        "relu": Rounded(relu, 0.0, 3.0, largest=3),
        "x": Rounded(branching.block.inputs[1], 0.0, 255.0),
    }
    fake = with_fake_quantise(branching, points)
    z, y = fake.run([torch.tensor([1.4, 0.6]), True])
    assert y.tolist() == [1.0, 2.0]  # x is 1 and 1
    assert z.tolist() == [2.0, 4.0]
    z, _ = fake.run([torch.tensor([9.0, 9.0]), True])
    assert z.tolist() == [6.0, 6.0]


def test_the_gradient_is_zero_where_the_range_ends(branching):
    (product,) = values_of(branching, "aten::mul")
    fake = with_fake_quantise(branching, {"p": Rounded(product, 0.0, 4.0)})
    weight = fake.parameters()["weight"].requires_grad_(True)
    _, y = fake.module(torch.tensor([2.5, 2.5]), False)  # products 2.5 and 5
    y.sum().backward()
    assert weight.grad.tolist() == [2.5, 0.0]


def test_a_range_follows_while_training_and_stays_otherwise(branching):
    (product,) = values_of(branching, "aten::mul")
    points = {"p": Rounded(product, 0.0, 4.0)}
    fake = with_fake_quantise(branching, points)
    x = torch.tensor([-3.0, 10.0])
    training = training_copy(fake, batch_norm="train")
    training.module(x, False)
    found = grids_of(training, points)["p"]
    # low 0 + (-3 - 0) / 100, high 4 + (20 - 4) / 100
    assert (found.low, found.high) == pytest.approx((-0.03, 4.16))
    assert found.scale == pytest.approx(4.19 / 255)
    evaluated = evaluation_copy(training)
    evaluated.module(x, False)
    assert grids_of(evaluated, points)["p"] == found
    assert grids_of(fake, points)["p"].high == 4.0


def digits_program(path):
    program = make_program(path)
    rounded = values_of(program, "aten::relu", "aten::linear")
    points = {f"v{value}": Rounded(value, -2.0, 4.0) for value in rounded}
    points["x"] = Rounded(program.block.inputs[1], 0.0, 1.0)
    return with_fake_quantise(program, points), points


@pytest.mark.parametrize(
    "every", [5, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["some", "all"]
)
def test_trained_and_resumed(tmp_path, every):
    fake, points = digits_program(tmp_path / "m.pt")
    settings = options(epochs=2, batch_size=16, ema={"decay": 0.9}, clip_norm=1.0)
    trained = resumed_everywhere(fake, run_of(settings), every).program
    found = grids_of(trained, points)
    for name, before in grids_of(fake, points).items():
        held = {
            path.rpartition(".")[2]: float(tensor)
            for path, tensor in buffers_of(trained).items()
            if f".{name}." in path
        }
        # Scale and zero belong to the range, averaged weights or not.
        assert held["scale"] == pytest.approx((held["high"] - held["low"]) / 255)
        assert name == "x" or (found[name].low, found[name].high) != (before.low, before.high)


def test_lower_precision_is_rounded_in_float32(tmp_path):
    fake, _ = digits_program(tmp_path / "m.pt")
    heard = Observer()
    train(fake, run_of(options(epochs=1, batch_size=64, precision="bf16")), heard)
    whole = Observer()
    train(fake, run_of(options(epochs=1, batch_size=64)), whole)
    assert heard.values("train/loss") == pytest.approx(whole.values("train/loss"), rel=0.02)
