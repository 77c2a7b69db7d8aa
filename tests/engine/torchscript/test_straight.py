"""What control flow is settled for exporters, and what must stay."""

from __future__ import annotations

from typing import Optional

import pytest
import torch
from torch import Tensor, nn

from engine.torchscript.program import Program
from engine.torchscript.straight import straighten
from tests.engine.digits import save_scripted

CASES = [(torch.randn(2, 4),), (torch.randn(3, 4),)]


def kinds(program: Program) -> list[str]:
    found = []
    for kind in ("prim::If", "prim::Loop", "prim::RaiseException", "aten::unflatten"):
        found += [kind] * len(program.graph.findAllNodes(kind, recurse=True))
    return found


@pytest.fixture
def straight(tmp_path):
    def made(model: nn.Module, cases=CASES) -> Program:
        program = Program.load(save_scripted(model.eval(), tmp_path / "m.pt"))
        before = str(program.graph)
        result = straighten(program, cases)
        assert str(program.graph) == before
        for inputs in cases:
            assert torch.equal(result.copy().run(inputs), program.copy().run(inputs))
        return result

    return made


class ByRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        if x.dim() != 2 or x.size(1) > 9:
            x = x.flatten(1)
        if mask is not None:
            x = x * mask
        if x.size(-1) != 4:
            raise ValueError("four")
        for layer in self.layers:
            x = layer(x)
        return x


def test_ranks_absent_arguments_fixed_sizes_and_checks_are_settled(straight):
    assert kinds(straight(ByRank())) == []


class Items(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(1)
        for part in [x, x * 2, x * 3]:
            total = total + part.unflatten(1, [2, -1]).sum()
        return total


def test_loops_over_lists_are_unrolled_and_unflatten_is_a_reshape(straight):
    assert kinds(straight(Items())) == []


class ByBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) > 100:
            return x * 2
        return x * 3


def test_a_decision_on_the_number_of_samples_stays(straight):
    """Every example decides alike; a larger one would not."""
    result = straight(ByBatch())
    assert kinds(result) == ["prim::If"]
    many = torch.ones(200, 4)
    assert torch.equal(result.run((many,)), many * 2)


def test_with_one_example_it_is_settled_like_any_size(straight):
    assert kinds(straight(ByBatch(), CASES[:1])) == []


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 1e6):
            return x * 2
        steps = int(x.abs().max().clamp(max=2.0))
        for _ in range(steps):
            x = x + 1
        return x


def test_decisions_on_values_stay(straight):
    result = straight(ByValue())
    assert kinds(result) == ["prim::If", "prim::Loop"]
    many = torch.full((2, 4), 1e7)
    assert torch.equal(result.run((many,)), many * 2)


class RowByRow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(4)
        for row in range(x.size(0)):
            total = total + x[row]
        return total


def test_a_loop_over_the_samples_stays(straight):
    result = straight(RowByRow())
    assert kinds(result) == ["prim::Loop"]
    assert torch.equal(result.run((torch.ones(9, 4),)), torch.full((4,), 9.0))


class Learning(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 3:
            return x * 2
        return x


def test_a_decision_on_what_the_program_writes_stays(tmp_path):
    program = Program.load(save_scripted(Learning().eval(), tmp_path / "m.pt"))
    assert kinds(straighten(program, CASES)) == ["prim::If"]
