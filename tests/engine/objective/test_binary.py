"""Binary cross-entropy of logits by hand."""

from __future__ import annotations

import math

import pytest
import torch
from secateur.recipe_objective import ObjectiveOptions
from torch.nn import functional

from engine.data.batches import Batch
from engine.errors import DatasetInvalid
from engine.objective.binary import LabelReader
from engine.objective.objective import resolve

LOSS = resolve(ObjectiveOptions(loss="bce_with_logits")).loss


def pair_of(scores, targets):
    return LOSS.reader.read(scores, Batch((), targets, len(scores)))


def test_by_hand():
    # s(0) = 1/2; s(log 3) = 3/4.
    pair = pair_of(torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]]))
    assert float(LOSS.mean(pair)) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert float(LOSS.total(pair)) == pytest.approx(math.log(2) + math.log(4))
    assert pair.terms == 2


def test_booleans_and_probabilities_are_labels():
    assert float(LOSS.mean(pair_of(torch.tensor([[0.0]]), torch.tensor([[True]])))) == (
        pytest.approx(math.log(2))
    )
    soft = LOSS.mean(pair_of(torch.tensor([math.log(3)]), torch.tensor([0.75])))
    assert float(soft) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


def test_far_logits_neither_overflow_nor_vanish():
    pair = pair_of(torch.tensor([-200.0, 200.0]), torch.tensor([1.0, 0.0]))
    assert float(LOSS.mean(pair)) == pytest.approx(200.0)


def test_it_is_no_cross_entropy_of_classes():
    scores, targets = torch.randn(8, 3), torch.eye(3)[torch.arange(8) % 3]
    found = float(LOSS.mean(pair_of(scores, targets)))
    swapped = float(functional.cross_entropy(scores, targets.argmax(1)))
    given = float(functional.binary_cross_entropy_with_logits(scores, targets))
    assert found == pytest.approx(given)
    assert found != pytest.approx(swapped, rel=1e-2)


def test_drawn_labels_follow_the_logits():
    scores = torch.tensor([[math.log(3), -math.log(3)]]).expand(4000, 2)
    drawn = LOSS.drawn(scores, torch.Generator().manual_seed(0))
    assert drawn.mean(0).tolist() == pytest.approx([0.75, 0.25], abs=0.03)


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (torch.zeros(4, 2).long(), "dtype int64; binary cross-entropy takes a label"),
        (torch.zeros(4), "does not fit the model's output"),
        (torch.zeros(4, 1), "does not fit the model's output"),
        (torch.tensor([[0.0, 1.0]] * 3 + [[0.0, 1.5]]), r"holds 1\.5 in row 13"),
    ],
)
def test_labels_that_do_not_fit(targets, says):
    with pytest.raises(DatasetInvalid, match=says):
        LabelReader().check_targets(torch.zeros(1, 2), Batch((), targets, 4), "t", 10)
