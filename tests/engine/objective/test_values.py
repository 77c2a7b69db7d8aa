"""Losses of regression by hand."""

from __future__ import annotations

import pytest
import torch
from secateur.recipe_objective import ObjectiveOptions

from engine.data.batches import Batch
from engine.errors import DatasetInvalid
from engine.objective.objective import resolve
from engine.objective.values import ValueReader

SCORES = torch.tensor([[1.0, 2.0], [0.0, -3.0]])
TARGETS = torch.tensor([[1.5, 0.0], [0.0, 1.0]], dtype=torch.float64)
# Errors -0.5, 2, 0 and -4.


def loss_of(**options):
    return resolve(ObjectiveOptions(**options)).loss


@pytest.mark.parametrize(
    ("options", "total"),
    [
        ({"loss": "mse"}, 0.25 + 4 + 16),
        ({"loss": "l1"}, 0.5 + 2 + 4),
        # d^2 / 2 below 1, |d| - 1/2 above.
        ({"loss": "smooth_l1"}, 0.125 + 1.5 + 3.5),
        # d^2 / 6 below 3, |d| - 3/2 above.
        ({"loss": "smooth_l1", "beta": 3.0}, 0.25 / 6 + 4 / 6 + 2.5),
    ],
)
def test_by_hand(options, total):
    loss = loss_of(**options)
    pair = loss.reader.read(SCORES, Batch((), TARGETS, 2))
    assert pair.terms == 4
    assert float(loss.total(pair)) == pytest.approx(total)
    assert float(loss.mean(pair)) == pytest.approx(total / 4)
    assert loss.name == options["loss"]


def test_the_three_are_three():
    pair = loss_of(loss="mse").reader.read(SCORES, Batch((), TARGETS, 2))
    means = {float(loss_of(loss=name).mean(pair)) for name in ("mse", "l1", "smooth_l1")}
    assert len(means) == 3


def test_types_meet_in_float32_at_least():
    reader = ValueReader()
    pair = reader.read(SCORES.half(), Batch((), TARGETS, 2))
    assert pair.scores.dtype == pair.targets.dtype == torch.float32
    wide = reader.read(SCORES.double(), Batch((), torch.tensor([[1, 2], [0, 3]]), 2))
    assert wide.scores.dtype == wide.targets.dtype == torch.float64


def test_drawn_targets_scatter_by_one_half_around_the_output():
    drawn = loss_of(loss="mse").drawn(torch.full((8000,), 3.0), torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(3.0, abs=0.03)
    assert float(drawn.var()) == pytest.approx(0.5, abs=0.03)
    for name in ("l1", "smooth_l1"):
        assert loss_of(loss=name).drawn(SCORES, torch.Generator()) is None


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (torch.zeros(2, 2, dtype=torch.bool), "dtype bool; regression takes numbers"),
        (torch.zeros(2), "shapes must be equal|does not fit"),
        (torch.zeros(2, 1), "does not fit the model's output"),
    ],
)
def test_targets_that_do_not_fit(targets, says):
    with pytest.raises(DatasetInvalid, match=says):
        ValueReader().check_targets(SCORES, Batch((), targets, 2), "t", 0)


def test_scores_that_are_no_numbers():
    with pytest.raises(DatasetInvalid, match="takes a float type"):
        ValueReader().check_scores(SCORES.long(), "t")
