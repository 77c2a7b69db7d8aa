"""Which weights can have an n:m pattern."""

from __future__ import annotations

import pytest
import torch
from secateur.recipe import PruneStage
from torch import Tensor, nn

from engine.coupling.input_dimensions import input_dimensions
from engine.errors import NothingPruned
from engine.masks import prune_elements
from engine.patterns import broken_patterns, held_patterns, pattern_dimensions
from tests.engine.core.programs import scripted


class Mixed(nn.Module):
    """Weights that read their inputs along different dimensions, or along none."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(4, 6, 2, 2)
        self.right = nn.Parameter(torch.randn(6, 5))
        self.odd = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens).unsqueeze(1)
        x = self.up(self.depthwise(self.wide(self.first(x).relu()).relu()))
        return self.odd(x.mean((2, 3)) @ self.right)


TOKENS = [torch.arange(16).reshape(2, 8) % 10]


def stage(**changes):
    return PruneStage.model_validate(
        {"stage": "prune", "granularity": "n_m", "n": 2, "m": 4, "normalize": "none"} | changes
    )


@pytest.fixture
def program():
    torch.manual_seed(0)
    return scripted(Mixed())


def test_dimensions_of_inputs(program):
    found = input_dimensions(program, TOKENS)
    weights = {name: dim for name, dim in found.items() if program.parameters()[name].dim() > 1}
    assert weights == {"wide.weight": 1, "up.weight": 0, "right": 0, "odd.weight": 1}


def test_what_cannot_have_the_pattern_is_left_whole_and_says_why(program):
    dimensions, frozen = pattern_dimensions(program, stage(), TOKENS)
    assert dimensions == {"wide.weight": 1, "up.weight": 0}
    reasons = {item.layer: item.reason for item in frozen}
    assert set(reasons) == {"table", "first", "depthwise", "right", "odd"}
    assert "5 inputs are no multiple of 4" in reasons["odd"]
    assert "6 inputs are no multiple of 4" in reasons["right"]
    assert "reads no inputs" in reasons["table"]
    assert {item.op for item in frozen} == {"2:4"}


def test_the_pattern_lies_along_the_inputs(program):
    dimensions, _ = pattern_dimensions(program, stage(), TOKENS)
    before = {name: program.parameters()[name].detach().clone() for name in dimensions}
    masks, removed = prune_elements(program, {}, stage(), seed=0, dimensions=dimensions)
    assert set(masks) == set(dimensions)
    assert removed == sum(weight.numel() for weight in before.values()) // 2
    for name, dim in dimensions.items():
        now = program.parameters()[name].detach().movedim(dim, -1).reshape(-1, 4)
        old = before[name].movedim(dim, -1).reshape(-1, 4)
        assert ((now != 0).sum(1) == 2).all()
        # The two largest of every four, by sorting them.
        assert torch.equal(now.abs().sum(1), old.abs().sort(1).values[:, 2:].sum(1))


def test_what_breaks_the_pattern_later_is_told(program):
    asked = stage()
    original = program.twin()
    dimensions, _ = pattern_dimensions(program, asked, TOKENS)
    masks, _ = prune_elements(program, {}, asked, seed=0, dimensions=dimensions)
    held = held_patterns([asked], original, program, masks, TOKENS)
    assert [(item.weight, item.holds, item.broken) for item in held] == [
        ("wide.weight", True, 0),
        ("up.weight", True, 0),
    ]
    assert broken_patterns(held) == []
    with torch.no_grad():
        program.parameters()["wide.weight"][0, :4, 0, 0] = 1.0
    held = held_patterns([asked], original, program, masks, TOKENS)
    assert [(item.holds, item.broken) for item in held] == [(False, 1), (True, 0)]
    assert "2:4 does not hold in wide.weight" in broken_patterns(held)[0]


def test_no_weight_with_whole_groups(program):
    with pytest.raises(NothingPruned, match="no weight can have the pattern 2:7") as refused:
        pattern_dimensions(program, stage(m=7), TOKENS)
    assert refused.value.where == "m"
    with pytest.raises(NothingPruned) as refused:
        pattern_dimensions(program, stage(exclude=["wide", "up"]), TOKENS)
    assert "right" in refused.value.hint
