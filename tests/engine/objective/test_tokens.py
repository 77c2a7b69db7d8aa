"""Next-token cross-entropy by hand."""

from __future__ import annotations

import math

import pytest
import torch
from secateur.recipe_objective import ObjectiveOptions
from torch.nn import functional

from engine.data.batches import Batch
from engine.errors import DatasetInvalid
from engine.objective.meter import Meter
from engine.objective.objective import resolve
from engine.objective.tokens import TokenReader

# At every position the tokens have the probabilities 1/2, 1/4, 1/4.
UNIFORM = torch.tensor([2.0, 1.0, 1.0]).log().expand(1, 4, 3)


def test_without_targets_the_inputs_are_shifted_by_one():
    loss = resolve(ObjectiveOptions(loss="next_token")).loss
    batch = Batch((torch.tensor([[2, 0, 1, 0]]),), None, 1)
    pair = loss.reader.read(UNIFORM, batch)
    # What follows: 0, 1, 0. The last position has no successor.
    assert pair.targets.tolist() == [0, 1, 0]
    assert float(loss.mean(pair)) == pytest.approx((math.log(2) * 2 + math.log(4)) / 3)


def test_each_position_is_held_against_its_own_successor():
    loss = resolve(ObjectiveOptions(loss="next_token")).loss
    ids, scores = torch.randint(0, 5, (3, 6)), torch.randn(3, 6, 5)
    found = loss.mean(loss.reader.read(scores, Batch((ids,), None, 3)))
    wrong = functional.cross_entropy(scores.flatten(0, 1), ids.flatten())
    expected = sum(-scores[n, t].log_softmax(0)[ids[n, t + 1]] for n in range(3) for t in range(5))
    assert float(found) == pytest.approx(float(expected / 15), rel=1e-5)
    assert float(found) != pytest.approx(float(wrong), rel=1e-3)


def test_targets_stand_at_the_positions_that_predict_them():
    loss = resolve(ObjectiveOptions(loss="next_token", ignore_index=-100)).loss
    targets = torch.tensor([[0, 1, -100, -100]])
    pair = loss.reader.read(UNIFORM, Batch((torch.zeros(1, 4).long(),), targets, 1))
    assert int(pair.terms) == 2
    assert float(loss.mean(pair)) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_perplexity_of_a_fair_die_is_its_sides():
    objective = resolve(ObjectiveOptions(loss="next_token"))
    meter = Meter(objective, "cpu")
    for rows in (1, 3):
        ids = torch.randint(0, 6, (rows, 5))
        meter.add(torch.zeros(rows, 5, 6), Batch((ids,), None, rows))
    found = meter.result()
    assert found.metrics == {"perplexity": pytest.approx(6.0)}
    assert not found.higher_is_better
    assert found.top1 is None


def test_padding_that_is_a_token_is_left_out():
    objective = resolve(ObjectiveOptions(loss="next_token", ignore_index=0, metrics=["accuracy"]))
    meter = Meter(objective, "cpu")
    scores = torch.zeros(1, 4, 3)
    scores[..., 1] = 9.0
    meter.add(scores, Batch((torch.tensor([[1, 1, 2, 0]]),), None, 1))
    assert meter.result().top1.model_dump() == {"correct": 1, "total": 2, "top1": 0.5}


@pytest.mark.parametrize(
    ("inputs", "targets", "says"),
    [
        (torch.tensor([[0, 1, 3]]), None, "token 3; the model has tokens 0 to 2"),
        (torch.tensor([[0, 1]]), None, "does not fit the model's output"),
        (torch.zeros(1, 3), None, "needs token ids"),
        (torch.tensor([[0, 1, 2]]), torch.zeros(1, 3), "dtype float32"),
        (torch.tensor([[0, 1, 2]]), torch.tensor([[0, -1, 2]]), "token -1"),
    ],
)
def test_ids_that_do_not_fit(inputs, targets, says):
    with pytest.raises(DatasetInvalid, match=says):
        TokenReader().check_targets(torch.zeros(1, 3, 3), Batch((inputs,), targets, 1), "t", 0)


def test_one_token_has_no_successor():
    batch = Batch((torch.tensor([[0]]),), None, 1)
    with pytest.raises(DatasetInvalid, match="one token, which none follows"):
        TokenReader().check_targets(torch.zeros(1, 1, 3), batch, "t", 0)


def test_scores_that_are_no_language_model():
    with pytest.raises(DatasetInvalid, match="samples, positions, vocabulary"):
        TokenReader().check_scores(torch.zeros(1, 3), "t")
