"""Cross-entropy by hand: of classes, of dense predictions, with what does not count."""

from __future__ import annotations

import math

import pytest
import torch
from secateur.recipe_objective import ObjectiveOptions
from torch.nn import functional

from engine.data.batches import Batch
from engine.errors import DatasetInvalid
from engine.objective.classes import ClassReader, CrossEntropy, cross_entropy
from engine.objective.objective import resolve

# Probabilities 1/4, 1/4, 1/2 and 1/10, 8/10, 1/10.
LOGITS = torch.tensor([[1.0, 1.0, 2.0], [1.0, 8.0, 1.0]]).log()


def test_two_samples_by_hand():
    expected = (math.log(2) + math.log(10)) / 2
    assert float(cross_entropy(LOGITS, torch.tensor([2, 0]))) == pytest.approx(expected)
    total = cross_entropy(LOGITS, torch.tensor([2, 0]), total=True)
    assert float(total) == pytest.approx(2 * expected)


def test_label_smoothing_by_hand():
    # -(1 - e) log p_y - (e / K) sum log p_k with e = 0.3, K = 3, of the first sample.
    expected = -0.7 * math.log(1 / 2) - 0.1 * (2 * math.log(1 / 4) + math.log(1 / 2))
    got = cross_entropy(LOGITS[:1], torch.tensor([2]), label_smoothing=0.3)
    assert float(got) == pytest.approx(expected)


def test_what_is_ignored_is_in_neither_the_sum_nor_the_number():
    targets = torch.tensor([2, 7])
    assert float(cross_entropy(LOGITS, targets, ignore_index=7)) == pytest.approx(math.log(2))
    # Also a value that is a class.
    assert float(cross_entropy(LOGITS, torch.tensor([2, 0]), ignore_index=0)) == pytest.approx(
        math.log(2)
    )
    given = functional.cross_entropy(LOGITS, targets, ignore_index=7, label_smoothing=0.2)
    found = cross_entropy(LOGITS, targets, ignore_index=7, label_smoothing=0.2)
    assert float(found) == pytest.approx(float(given))


def test_a_batch_without_any_term_is_zero_with_gradient_zero():
    logits = LOGITS.clone().requires_grad_()
    loss = cross_entropy(logits, torch.tensor([7, 7]), ignore_index=7)
    loss.backward()
    assert float(loss) == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def test_half_types_are_computed_in_float32():
    assert cross_entropy(LOGITS.half(), torch.tensor([2, 0])).dtype == torch.float32


def test_dense_predictions_count_every_position():
    loss = resolve(ObjectiveOptions(loss="segmentation", ignore_index=255)).loss
    scores = torch.stack([LOGITS.T, LOGITS.T.flip(1)]).unsqueeze(-1)  # [2, 3, 2, 1]
    targets = torch.tensor([[[2], [0]], [[255], [2]]], dtype=torch.uint8)
    pair = loss.reader.read(scores, Batch((), targets, 2))
    assert int(pair.terms) == 3
    expected = math.log(2) + math.log(10) + math.log(2)
    assert float(loss.total(pair)) == pytest.approx(expected)
    assert float(loss.mean(pair)) == pytest.approx(expected / 3)


def test_drawn_labels_follow_the_probabilities():
    loss = CrossEntropy(ClassReader())
    scores = LOGITS[:1].expand(4000, 3)
    drawn = loss.drawn(scores, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert shares.tolist() == pytest.approx([0.25, 0.25, 0.5], abs=0.03)


@pytest.mark.parametrize(
    ("scores", "targets", "says"),
    [
        (torch.zeros(1, 3), torch.zeros(4), "dtype float32; cross-entropy takes class indices"),
        (torch.zeros(1, 3), torch.tensor([0, 1, 3, 2]), "class 3; the model has classes 0 to 2"),
        (torch.zeros(1, 3), torch.tensor([0, 255, 1, 2]), "class 255"),
        (torch.zeros(1, 3, 2), torch.zeros(4, 3).long(), "does not fit the model's output"),
    ],
)
def test_targets_that_do_not_fit(scores, targets, says):
    with pytest.raises(DatasetInvalid, match=says) as caught:
        ClassReader().check_targets(scores, Batch((), targets, 4), "train/targets/0", 100)
    assert caught.value.where == "train/targets/0"


def test_the_row_of_a_class_out_of_range_is_named_and_what_is_ignored_is_not():
    batch = Batch((), torch.tensor([0, 255, 1, 9]), 4)
    with pytest.raises(DatasetInvalid, match="class 9") as caught:
        ClassReader(ignore_index=255).check_targets(torch.zeros(1, 3), batch, "t", 100)
    assert "row 103" in caught.value.hint
    ClassReader(ignore_index=255).check_targets(
        torch.zeros(1, 3), Batch((), torch.tensor([0, 255]), 2), "t", 0
    )


@pytest.mark.parametrize("scores", [torch.zeros(2, 3), torch.zeros(2, 3, 4).long()])
def test_scores_that_are_no_dense_predictions(scores):
    with pytest.raises(DatasetInvalid, match="samples, classes, height, width"):
        ClassReader(dense=True).check_scores(scores, "t")
