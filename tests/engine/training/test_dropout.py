from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.errors import TrainingRuleUnmet
from engine.torchscript.modes import evaluation_copy, training_copy
from engine.torchscript.program import Program
from engine.training.dropout import dropouts, rescaled_dropout
from tests.engine.training.test_finetune import FixedBatch, make_program

INPUTS = (torch.zeros(2, 1, 8, 8),)


class TwoDrops(nn.Module):
    """The first dropout feeds `hidden` past a norm and an activation, the second `last`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(64, width)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(width)
        self.hidden = nn.Linear(width, 4)
        self.late = nn.Dropout(0.2)
        self.last = nn.Linear(4, 10)
        self.end = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.drop(self.first(x.flatten(1)))))
        return self.end(self.last(self.late(self.hidden(x))))


def rescaled(program, original, masks=None):
    found = rescaled_dropout(program, INPUTS, original, masks or {}, field="recipe.stages.1")
    return [found[item.index] for item in dropouts(program, INPUTS) if item.index in found]


@pytest.mark.parametrize("traced", [False, True])
def test_compacted_layers_by_hand(tmp_path, traced):
    # `hidden` had 8 x 4 connections and keeps 2 x 4: 0.5 sqrt(8 / 32) = 0.25. `last` lost none.
    dense = make_program(tmp_path / "d.pt", TwoDrops(8), traced=traced)
    small = make_program(tmp_path / "s.pt", TwoDrops(2), traced=traced)
    assert rescaled(small, dense) == pytest.approx([0.25, 0.2])
    assert [item.feeds for item in dropouts(dense, INPUTS)] == [
        ("hidden.weight",),
        ("last.weight",),
        (),  # nothing follows the last one, which keeps its probability
    ]


def test_masked_layers_by_hand(tmp_path):
    # 10 of 40 connections of `last` are left: 0.2 sqrt(1 / 4) = 0.1
    dense = make_program(tmp_path / "d.pt", TwoDrops(8))
    mask = torch.zeros(10, 4, dtype=torch.bool)
    mask[:, 0] = True
    assert rescaled(dense, dense, {"last.weight": mask}) == pytest.approx([0.5, 0.1])


class Branches(nn.Module):
    """Whole channels are dropped, before two convolutions whose results are added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.drop = nn.Dropout2d(0.6)
        self.wide = nn.Conv2d(width, 2, 3, padding=1)
        self.narrow = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.first(x))
        return (self.wide(x) + self.narrow(torch.relu(x))).flatten(1)


@pytest.mark.parametrize("traced", [False, True])
def test_connections_of_several_layers_are_added(tmp_path, traced):
    # 9 x 4 x 2 + 4 x 2 = 80 before. Now 9 x 1 x 2, of which 18 - 13 = 5 live, and 1 x 2: 7 of 80
    dense = make_program(tmp_path / "d.pt", Branches(4), traced=traced)
    small = make_program(tmp_path / "s.pt", Branches(1), traced=traced)
    mask = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    mask.view(-1)[:5] = True
    assert rescaled(small, dense) == pytest.approx([0.3])  # sqrt(20 / 80) = 1 / 2
    assert rescaled(small, dense, {"wide.weight": mask}) == pytest.approx([0.1774824])


class OneDrop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(10_000, 10)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.drop(x)
        return kept + 0.0 * self.linear(kept).sum()


@pytest.mark.parametrize("traced", [False, True])
def test_training_uses_them_and_the_program_keeps_its_own(tmp_path, traced):
    module = OneDrop().eval()
    inputs = torch.ones(1, 10_000)
    made = torch.jit.trace(module, inputs) if traced else torch.jit.script(module)
    torch.jit.save(made, tmp_path / "m.pt")
    program = Program.load(tmp_path / "m.pt")
    (only,) = dropouts(program, [inputs])
    student = training_copy(program, batch_norm="train", dropout={only.index: 0.1})
    torch.manual_seed(0)
    zeros = float((student.module(inputs) == 0).float().mean())
    assert zeros == pytest.approx(0.1, abs=0.01)
    again = training_copy(evaluation_copy(student), batch_norm="train")
    assert float((again.module(inputs) == 0).float().mean()) == pytest.approx(0.5, abs=0.02)


def test_a_model_without_dropout_is_refused(tmp_path):
    program = make_program(tmp_path / "m.pt", FixedBatch())
    inputs = (torch.zeros(4, 64),)
    with pytest.raises(TrainingRuleUnmet, match="no dropout") as caught:
        rescaled_dropout(program, inputs, program, {}, field="recipe.stages.1")
    assert caught.value.where == "recipe.stages.1.dropout"
