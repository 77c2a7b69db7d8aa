"""The error barrier between two copies, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.lottery.rewinding import snapshot
from engine.lottery.stability import barriers, interpolated
from engine.torchscript.program import Program
from tests.engine.digits import save_scripted


def test_interpolated():
    first = {"w": torch.tensor([4.0, 0.0]), "n": torch.tensor(3)}
    second = {"w": torch.tensor([0.0, 8.0]), "n": torch.tensor(5)}
    middle = interpolated(first, second, 0.25)
    assert middle["w"].tolist() == [1.0, 6.0]
    assert middle["n"].item() == 3
    assert interpolated(first, second, 1.0)["w"].tolist() == [4.0, 0.0]
    assert interpolated(first, second, 0.0)["w"].tolist() == [0.0, 8.0]


def test_barrier(tmp_path):
    model = nn.Linear(1, 1, bias=False)
    program = Program.load(save_scripted(model, tmp_path / "line.pt"))
    copies = [{**snapshot(program), "weight": torch.full((1, 1), at)} for at in (1.0, -1.0)]

    def error(found: Program) -> float:
        # w runs from -1 to 1: the error is 0.9 at 0, 0.2 at -1 and 0.4 at 1.
        w = float(found.parameters()["weight"].item())
        return 0.9 - (0.5 if w > 0 else 0.7) * abs(w)

    before = program.parameters()["weight"].item()
    (found,) = barriers(program, copies, error)
    assert (found.first, found.second) == (1, 2)
    assert len(found.errors) == 11
    assert found.errors[0] == pytest.approx(0.2)
    assert found.errors[5] == pytest.approx(0.9)
    assert found.errors[10] == pytest.approx(0.4)
    assert found.barrier == pytest.approx(0.9 - 0.3)
    assert program.parameters()["weight"].item() == before


def test_every_pair(tmp_path):
    program = Program.load(save_scripted(nn.Linear(1, 1), tmp_path / "line.pt"))
    found = barriers(program, [snapshot(program)] * 3, lambda _: 0.5)
    assert [(item.first, item.second) for item in found] == [(1, 2), (1, 3), (2, 3)]
    assert [item.barrier for item in found] == [0.0, 0.0, 0.0]
