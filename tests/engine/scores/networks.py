"""Tiny networks whose scores are worked out by hand in the tests."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from engine.coupling import couple
from engine.data.splits import Split
from engine.evidence import Evidence
from engine.scores import component_scores, criterion
from engine.torchscript.program import Program


def linear(rows: list[list[float]]) -> nn.Linear:
    weight = torch.tensor(rows)
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made


def program_of(model: nn.Module) -> Program:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(model.eval()), file)
    return Program.load(file.getvalue())


def evidence_of(
    x: list[list[float]] | Tensor, targets: list[int] | None = None, **changes
) -> Evidence:
    inputs = torch.as_tensor(x)
    split = Split(
        name="train",
        inputs=(inputs,),
        input_names=("train/inputs/0",),
        targets=None if targets is None else torch.tensor(targets),
        target_name="train/targets/0",
    )
    return Evidence(**{"example": (inputs[:2],), "split": split} | changes)


def scores_of(
    name: str,
    model: nn.Module | Program,
    evidence: Evidence,
    *,
    aggregate="sum",
    normalize="none",
    slices="producing",
    seed=0,
) -> np.ndarray:
    program = model if isinstance(model, Program) else program_of(model)
    coupling = couple(program, list(evidence.example))
    return component_scores(
        coupling,
        coupling.methods.join(program).tensors(),
        criterion(name),
        aggregate=aggregate,
        normalize=normalize,
        slices=slices,
        seed=seed,
        program=program,
        evidence=evidence,
    )


class Chain(nn.Module):
    """fc1, relu, fc2. On x = (1, 2) the hidden layer is (1, 2, 1) and both logits are 5."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = linear([[3, -1], [0, 1], [1, 0]])
        self.fc2 = linear([[3, 1, 0], [0, 2, 1]])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


class Residual(nn.Module):
    """Two layers make the same channels: on x = 1, relu((3, 1) + (-2, 3)) = (1, 4); logits 9."""

    def __init__(self) -> None:
        super().__init__()
        self.a = linear([[3], [1]])
        self.b = linear([[-2], [3]])
        self.fc = linear([[5, 1], [1, 2]])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.a(x) + self.b(x)))


class Activated(Residual):
    """The same with a nonlinearity on each side of the sum: relu(3, 1) + relu(-2, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.a(x)) + torch.relu(self.b(x)))


class Normalised(nn.Module):
    """fc1 with a BatchNorm, fc2 without one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = linear([[3, -1], [0, 1], [1, 0]])
        self.bn = nn.BatchNorm1d(3)
        self.fc2 = linear([[1, 2, 3], [2, 1, 0]])
        self.fc3 = linear([[1, 2], [2, 1]])
        with torch.no_grad():
            self.bn.weight.copy_(torch.tensor([0.5, -2.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.bn(self.fc1(x))))))
