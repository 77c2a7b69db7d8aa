"""`slices`: the weights that read a channel are scored beside those that produce it, or alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from secateur.recipe import PruneStage
from torch import Tensor, nn

from engine.coupling import couple
from engine.pipeline.prune import plan_channels
from engine.scores import component_scores, criterion
from tests.engine.scores.networks import (
    Chain,
    Residual,
    evidence_of,
    linear,
    program_of,
    scores_of,
)

ALL = {
    # On x = 1 with target 0: g w = (-6, 0.5) in a, (4, 1.5) in b, ((-2.5, -2), (0.5, 4)) in fc
    ("taylor", "sum"): [16.0, 16.0],
    ("snip", "sum"): [13.0, 8.0],
    ("snip", "max"): [6.0, 6.0],
    ("snip", "mean"): [13 / 3, 8 / 3],
    ("hessian", "sum"): [29.25, 11.25],
    # |a| + |b| = (5, 4), columns of fc: |5| + |1| and |1| + |2|
    ("l1_norm", "sum"): [11.0, 7.0],
    ("l2_norm", "sum"): [5 + 26**0.5, 4 + 5**0.5],
    # what flows in flows out: 30 and 12 through the producers, and again through the readers
    ("synflow", "sum"): [60.0, 24.0],
}


READING = {
    # signed first: (-2.5 + 0.5)^2 and (-2 + 4)^2
    ("taylor", "sum"): [4.0, 4.0],
    ("snip", "sum"): [3.0, 6.0],
    ("hessian", "sum"): [3.25, 10.0],
    ("l1_norm", "sum"): [6.0, 3.0],
    ("synflow", "sum"): [30.0, 12.0],
    # the hidden layer is (1, 4): columns (5, 1) and (1, 2) of fc times that
    ("wanda", "sum"): [6.0, 12.0],
}


@pytest.mark.parametrize(
    ("slices", "name", "aggregate", "expected"),
    [
        (slices, *key, expected)
        for slices, cases in (("all", ALL), ("reading", READING))
        for key, expected in cases.items()
    ],
)
def test_by_hand(slices, name, aggregate, expected):
    evidence = evidence_of([[1.0]], [0])
    scores = scores_of(name, Residual(), evidence, aggregate=aggregate, slices=slices)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_what_no_weight_reads_is_scored_by_all_it_has():
    model = nn.Sequential(linear([[3.0], [1.0]]), nn.ReLU(), linear([[5.0, 1.0]]))
    program = program_of(model)
    coupling = couple(program, [torch.ones(2, 1)])
    only_made = [item for item in coupling.slices if item.role == "output"]
    scores = component_scores(
        replace(coupling, slices=only_made),
        program.tensors(),
        criterion("l1_norm"),
        aggregate="sum",
        normalize="none",
        slices="reading",
        seed=0,
    )
    np.testing.assert_allclose(scores, [3.0, 1.0])


class Biased(nn.Module):
    """On x = 1 the hidden layer is (2, 1) + (1, 2) = (3, 3), and so are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(1, 2)
        self.fc2 = linear([[1, 0], [0, 1]])
        with torch.no_grad():
            self.fc1.weight.copy_(torch.tensor([[2.0], [1.0]]))
            self.fc1.bias.copy_(torch.tensor([1.0, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


@pytest.mark.parametrize(
    ("name", "slices", "expected"),
    [
        # Target 0: g w = (-1, 0.5) in the weight, (-0.5, 1) in the bias, (-1.5, 1.5) in fc2
        ("taylor", "producing", [1.0, 0.25]),
        ("taylor", "all", [9.0, 9.0]),
        ("hessian", "all", [(1 + 0.25 + 2.25) / 2, (0.25 + 1 + 2.25) / 2]),
        # Magnitudes of biases are of another unit than those of filters, and stay out.
        ("l1_norm", "producing", [2.0, 1.0]),
        ("l1_norm", "all", [3.0, 2.0]),
        ("l1_norm", "reading", [1.0, 1.0]),
    ],
)
def test_biases_count_where_every_weight_has_a_value_of_its_own(name, slices, expected):
    scores = scores_of(name, Biased(), evidence_of([[1.0]], [0]), slices=slices)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("slices", "kept"),
    [("producing", [3.0, -1.0]), ("reading", [0.0, 1.0]), ("all", [0.0, 1.0])],
)
def test_the_recipe_decides_what_goes(slices, kept):
    model = Chain()
    with torch.no_grad():  # (4, 1, 1) are produced, and (0.5, 9, 1) read
        model.fc2.weight.copy_(torch.tensor([[0.5, 4.0, 0.0], [0.0, 5.0, 1.0]]))
    stage = PruneStage(stage="prune", slices=slices, allocation={"count": 2})
    planned = plan_channels(program_of(model), stage, [torch.tensor([[1.0, 2.0]])], seed=0)
    assert planned.compacted is not None
    assert planned.compacted.parameters()["fc1.weight"].tolist() == [kept]
