"""Training mode of scripted programs and of programs traced in evaluation mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.torchscript.modes import evaluation_copy, training_copy
from engine.torchscript.program import Program
from tests.engine.core.programs import scripted, traced


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv(x)))
        return self.head(self.drop(y.flatten(1)))


X = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["scripted", "traced"])
def program(request: pytest.FixtureRequest) -> Program:
    torch.manual_seed(0)
    return scripted(Net()) if request.param == "scripted" else traced(Net(), [X])


def test_training_moves_statistics_and_drops(program: Program) -> None:
    training = training_copy(program, batch_norm="train")
    before = training.attributes()["norm.running_mean"].clone()
    first, second = training.module(X), training.module(X)
    assert not torch.equal(first, second)  # dropout differs from run to run
    assert not torch.equal(training.attributes()["norm.running_mean"], before)
    first.sum().backward()
    assert all(parameter.grad is not None for parameter in training.parameters().values())


def test_frozen_batch_norm_keeps_statistics_but_drops(program: Program) -> None:
    training = training_copy(program, batch_norm="frozen")
    before = training.attributes()["norm.running_mean"].clone()
    assert not torch.equal(training.module(X), training.module(X))
    assert torch.equal(training.attributes()["norm.running_mean"], before)


def test_back_to_evaluation_with_the_trained_weights(program: Program) -> None:
    training = training_copy(program, batch_norm="train")
    with torch.no_grad():
        for parameter in training.parameters().values():
            parameter.add_(0.1)
    training.module(X)
    evaluation = evaluation_copy(training)
    assert torch.equal(evaluation.module(X), evaluation.module(X))
    for name, tensor in training.attributes().items():
        assert torch.equal(evaluation.attributes()[name], tensor), name
    # The program it was made from is untouched.
    assert not torch.equal(program.parameters()["head.bias"], evaluation.parameters()["head.bias"])
    reloaded = Program.load(evaluation.to_bytes())
    assert torch.equal(reloaded.module(X), evaluation.module(X))


def test_training_copy_owns_its_weights(program: Program) -> None:
    training = training_copy(program, batch_norm="train")
    with torch.no_grad():
        training.parameters()["head.weight"].zero_()
    assert program.parameters()["head.weight"].abs().sum() > 0
