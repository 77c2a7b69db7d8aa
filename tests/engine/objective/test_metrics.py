"""Metrics by hand, and counted over any batches as over the whole."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from secateur.recipe_objective import FITTING, METRICS, MetricName, ObjectiveOptions

from engine.data.batches import Batch
from engine.objective.meter import Meter
from engine.objective.metrics import _BUILT_IN
from engine.objective.objective import resolve


def measured(options, *batches):
    """Every metric after some batches of (output, targets)."""
    meter = Meter(resolve(ObjectiveOptions.model_validate(options)), "cpu")
    for output, targets in batches:
        meter.add(output, Batch((), targets, len(output)))
    return meter.result()


def one_hot(classes, of):
    return torch.eye(of)[torch.tensor(classes)]


def test_accuracy_and_top5_by_hand():
    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4], [4.0, 5, 6, 7, 8, 9], [9.0, 8, 7, 6, 5, 4]])
    found = measured({"metric": "top5"}, (scores, torch.tensor([0, 0, 4])))
    assert found.metrics == {"top5": pytest.approx(2 / 3), "accuracy": pytest.approx(1 / 3)}
    assert (found.top1.correct, found.top1.total) == (1, 3)
    assert found.value == pytest.approx(2 / 3)


def test_top5_of_three_classes_is_all():
    assert measured({"metric": "top5"}, (torch.eye(3), torch.tensor([1, 2, 0]))).value == 1


def test_mean_iou_by_hand_from_the_confusion_matrix():
    # Targets 0 0 0 1 1 2, predictions 0 0 1 1 2 2 of four classes:
    # class 0: 2 of 3, class 1: 1 of 3, class 2: 1 of 2; class 3 does not occur.
    scores = one_hot([0, 0, 1, 1, 2, 2], 4).T.reshape(1, 4, 2, 3)
    targets = torch.tensor([0, 0, 0, 1, 1, 2]).reshape(1, 2, 3)
    options = {"loss": "segmentation", "metrics": ["accuracy"]}
    found = measured(options, (scores, targets))
    assert found.metrics["miou"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 2) / 3)
    assert found.metrics["accuracy"] == pytest.approx(4 / 6)


def test_mean_iou_is_of_all_samples_together_and_not_a_mean_over_images():
    right = one_hot([0, 0, 0, 0], 2).T.reshape(1, 2, 2, 2)
    half = torch.tensor([[[0, 0], [0, 0]], [[0, 0], [0, 1]]])
    found = measured({"loss": "segmentation"}, (torch.cat([right, right]), half))
    # Class 0: 7 of 8; class 1: 0 of 1.
    assert found.value == pytest.approx(7 / 16)
    assert found.value != pytest.approx((1.0 + 3 / 8) / 2)


def test_ignored_pixels_are_in_neither_target_nor_prediction():
    scores = one_hot([0, 1, 1], 2).T.reshape(1, 2, 1, 3)
    targets = torch.tensor([0, 1, 255]).reshape(1, 1, 3)
    found = measured({"loss": "segmentation", "ignore_index": 255}, (scores, targets))
    assert found.value == 1


def test_binary_accuracy_by_hand():
    scores = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    found = measured({"loss": "bce_with_logits"}, (scores, torch.tensor([[1.0, 0], [0, 1]])))
    assert found.metrics == {"binary_accuracy": 0.75}
    assert found.top1 is None


def test_errors_by_hand():
    options = {"loss": "l1", "metrics": ["mse", "rmse", "loss"]}
    found = measured(options, (torch.tensor([1.0, 2, 4]), torch.tensor([1.0, 0, 0])))
    assert list(found.metrics) == ["mae", "mse", "rmse", "loss"]
    assert found.metrics["mae"] == pytest.approx(2)
    assert found.metrics["mse"] == pytest.approx(20 / 3)
    assert found.metrics["rmse"] == pytest.approx(math.sqrt(20 / 3))
    assert found.metrics["loss"] == pytest.approx(2)
    assert not found.higher_is_better


def test_perplexity_is_e_to_the_mean_over_tokens_and_not_over_batches():
    options = {"metric": "perplexity"}
    easy, hard = torch.tensor([[20.0, 0.0]]), torch.zeros(3, 2)
    found = measured(options, (easy, torch.tensor([0])), (hard, torch.tensor([0, 1, 1])))
    assert found.value == pytest.approx(math.exp(3 * math.log(2) / 4))
    assert found.value != pytest.approx((1 + 2) / 2)


def test_a_loss_beyond_float64_is_an_infinite_perplexity():
    scores = torch.tensor([[0.0, 2000.0]])
    assert measured({"metric": "perplexity"}, (scores, torch.tensor([0]))).value == math.inf


def test_label_smoothing_is_no_part_of_what_is_reported():
    scores, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    smooth = measured({"label_smoothing": 0.4}, (scores, targets))
    assert smooth.loss == measured({}, (scores, targets)).loss


CASES = {
    "cross_entropy": {"metrics": ["top5", "miou", "perplexity", "loss"], "ignore_index": 2},
    "segmentation": {"metrics": ["accuracy", "loss"], "ignore_index": 2},
    "bce_with_logits": {"metrics": ["loss"]},
    "mse": {"metrics": ["rmse", "mae"]},
    "smooth_l1": {"metrics": ["mse"], "beta": 0.3},
}


@pytest.mark.parametrize("loss", CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_batches_in_any_order_say_what_the_whole_says(loss, data):
    rows = data.draw(st.integers(2, 12))
    source = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    shape = (rows, 6, 3, 2) if loss == "segmentation" else (rows, 6)
    scores = torch.randn(shape, generator=source)
    if loss in ("cross_entropy", "segmentation"):
        targets = torch.randint(0, 6, (rows, *shape[2:]), generator=source)
        targets[0] = 1  # one target at least counts
    else:
        targets = torch.rand(shape, generator=source)
    order = torch.tensor(data.draw(st.permutations(range(rows))))
    cuts = sorted(data.draw(st.sets(st.integers(1, rows - 1))))
    options = {"loss": loss, **CASES[loss]}
    whole = measured(options, (scores, targets))
    parts = [order[start:stop] for start, stop in pairwise([0, *cuts, rows])]
    found = measured(options, *((scores[part], targets[part]) for part in parts))
    assert found.loss == pytest.approx(whole.loss, rel=1e-5)
    assert found.top1 == whole.top1
    assert found.metrics == pytest.approx(whole.metrics, rel=1e-5)


@pytest.mark.parametrize("loss", CASES)
def test_sums_go_on_from_their_memory(loss):
    objective = resolve(ObjectiveOptions.model_validate({"loss": loss, **CASES[loss]}))
    shape = (4, 6, 3, 2) if loss == "segmentation" else (4, 6)
    classes = loss in ("cross_entropy", "segmentation")
    pairs = [
        objective.pair(
            torch.randn(shape),
            Batch((), torch.randint(0, 6, (4, *shape[2:])) if classes else torch.rand(shape), 4),
        )
        for _ in range(2)
    ]
    for metric in objective.metrics:
        if metric.begin is None:
            continue
        first, whole, second = metric.begin("cpu"), metric.begin("cpu"), metric.begin("cpu")
        first.add(pairs[0])
        kept = first.memory()
        first.add(pairs[1])  # what was kept stays as it was
        second.recall(kept)
        second.add(pairs[1])
        for pair in pairs:
            whole.add(pair)
        assert second.value() == whole.value() == first.value()


def test_every_metric_is_registered_with_its_direction_and_fits_a_loss():
    names = set(MetricName.__args__) - {"module"}
    assert names == set(METRICS) == set(_BUILT_IN)
    assert names <= {name for fitting in FITTING.values() for name in fitting}
    assert {name for name, kind in METRICS.items() if kind.higher_is_better} == {
        "accuracy", "top5", "miou", "binary_accuracy",
    }  # fmt: skip
