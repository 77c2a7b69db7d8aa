from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from engine.layers.branches import find_branches
from engine.layers.choice import choose
from engine.layers.scores import branch_scores
from tests.engine.core.programs import traced
from tests.engine.layers.nets import Branch, chain, scaling, turning

X = torch.tensor([[1.0, 0.0], [3.0, 4.0]])


def scored(criterion, model, inputs=(X,), seed=0):
    program = traced(model, inputs)
    branches = find_branches(program, inputs).removable
    return branches, branch_scores(criterion, program, branches, inputs, seed)


def test_output_effect_by_hand():
    # The output is 1.25 * 1.5 * 0.6 = 1.125 times the input. Without one branch it is 0.9, 0.75
    # or 1.875 times; without the first and another 0.6 or 1.5 times.
    branches, effect = scored("output_effect", chain(scaling(0.25), scaling(0.5), scaling(-0.4)))
    assert effect(branches, []) == pytest.approx([0.225 / 1.125, 0.375 / 1.125, 0.75 / 1.125])
    after = effect(branches[1:], branches[:1])
    assert after == pytest.approx([0.525 / 1.125, 0.375 / 1.125])


def test_the_effect_is_measured_anew_after_each_removal():
    branches, effect = scored("output_effect", chain(scaling(0.25), scaling(0.5), scaling(-0.4)))
    choice = choose(branches, 2, effect)
    # Alone the second one matters less than the third; without the first it matters more.
    assert [branch.name for branch in choice.chosen] == ["0.fc", "2.fc"]
    assert list(choice.chosen.values()) == pytest.approx([0.2, 1 / 3])
    assert list(choice.first.values()) == pytest.approx([0.2, 1 / 3, 2 / 3])


def test_block_influence_by_hand():
    # Turned by an angle of tangent 3/4 and 4/3 the cosines are 4/5 and 3/5; x - 2 x is -x.
    branches, influence = scored(
        "block_influence", chain(turning(3 / 4), turning(4 / 3), scaling(-2), scaling(7))
    )
    assert influence(branches, []) == pytest.approx([0.2, 0.4, 2, 0], abs=1e-6)
    choice = choose(branches, 2, influence)
    assert [branch.name for branch in choice.chosen] == ["3.fc", "0.fc"]


def test_block_influence_looks_along_channels_in_convolutions():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1, bias=False)
            self.conv.weight = nn.Parameter(turning(3 / 4).reshape(2, 2, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(x)

    image = torch.tensor([[1.0, 2.0], [0.0, 5.0]]).reshape(1, 2, 1, 2)
    branches, influence = scored("block_influence", Net(), (image,))
    # Along the last dimension, (1, 2) and (1, -1.75), it would be something else.
    assert influence(branches, []) == pytest.approx([0.2])


def test_norms_are_means_over_the_branch():
    weights = torch.tensor([[3.0, -1.0], [0.0, 0.0]]), scaling(2.0)
    branches, l1 = scored("l1_norm", chain(*weights))
    assert l1(branches, []) == pytest.approx([4 / 4, 4 / 4])
    branches, l2 = scored("l2_norm", chain(*weights))
    assert l2(branches, []) == pytest.approx([math.sqrt(10 / 4), math.sqrt(8 / 4)])


def test_random_scores_follow_the_seed_and_the_name():
    model = chain(scaling(1.0), scaling(2.0), scaling(3.0))
    branches, first = scored("random", model, seed=1)
    _, second = scored("random", model, seed=2)
    assert first(branches, []) == first(branches[::-1], [])[::-1]
    assert first(branches, []) != second(branches, [])
    assert len(set(first(branches, []))) == 3


class Nested(nn.Module):
    """x + g(h + f(h)): the outer branch holds the inner one."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(2, 2)
        self.inner = Branch(scaling(0.5))
        self.leave = nn.Linear(2, 2)
        self.last = Branch(scaling(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.leave(self.inner(self.enter(x))))


@pytest.mark.parametrize(
    ("count", "chosen", "inside"),
    [
        (1, ["inner.fc"], []),
        # The outer one would be third, and takes two places.
        (2, ["inner.fc", "last.fc"], []),
        (3, ["enter", "last.fc"], ["inner.fc"]),
    ],
)
def test_what_lies_inside_a_branch_counts(count, chosen, inside):
    branches, _ = scored("random", Nested())
    assert {branch.name for branch in branches} == {"inner.fc", "enter", "last.fc"}
    order = {"inner.fc": 1.0, "enter": 3.0, "last.fc": 2.0}
    choice = choose(branches, count, lambda items, _gone: [order[item.name] for item in items])
    assert sorted(branch.name for branch in choice.chosen) == chosen
    assert [branch.name for branch in choice.inside] == inside
    assert choice.removed == count


def test_a_branch_the_program_cannot_do_without_is_not_chosen():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Branch(scaling(1.0)), Branch(scaling(2.0))

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            z = self.second(y)
            return z / (z - y).abs().mean()  # of nothing, without the second branch

    branches, effect = scored("output_effect", Net())
    choice = choose(branches, 2, effect)
    assert [branch.name for branch in choice.chosen] == ["first.fc"]
    assert [branch.name for branch in choice.fatal] == ["second.fc"]
