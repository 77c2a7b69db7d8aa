"""The objective of a job and of its trainings."""

from __future__ import annotations

import pytest
import torch
from secateur.recipe import FinetuneOptions
from secateur.recipe_objective import FITTING, LossName, ObjectiveOptions

from engine.data.batches import Batch
from engine.objective.losses import LOSSES
from engine.objective.objective import CLASSIFICATION, resolve
from engine.objective.uploaded import ObjectiveModuleInvalid

SCORES, TARGETS = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
BATCH = Batch((), TARGETS, 6)


def test_every_loss_is_registered():
    assert {*LOSSES, "module"} == set(LossName.__args__) == set(FITTING)


def test_a_recipe_that_says_nothing_is_classification():
    assert CLASSIFICATION.loss.name == "cross_entropy"
    assert [metric.name for metric in CLASSIFICATION.metrics] == ["accuracy"]
    report = CLASSIFICATION.report()
    assert (report.decides.title, report.decides.fraction) == ("top-1 accuracy", True)


def test_a_training_may_minimise_another_loss():
    judged = resolve(ObjectiveOptions(loss="mse"))
    assert judged.trained_by(FinetuneOptions()) is judged
    trained = judged.trained_by(FinetuneOptions(loss="l1"))
    assert trained.loss.name == "l1"
    # What judges stays.
    assert trained.metrics == judged.metrics


def test_smoothing_of_a_training_and_of_the_objective():
    own = CLASSIFICATION.trained_by(FinetuneOptions(label_smoothing=0.2)).loss
    smooth = resolve(ObjectiveOptions(label_smoothing=0.2))
    pair = smooth.pair(SCORES, BATCH)
    assert float(own.mean(pair)) == float(smooth.loss.mean(pair))
    assert float(own.mean(pair)) != float(CLASSIFICATION.loss.mean(pair))
    assert smooth.trained_by(FinetuneOptions()) is smooth
    less = smooth.trained_by(FinetuneOptions(label_smoothing=0.1)).loss
    assert float(less.mean(pair)) != float(own.mean(pair))


def test_gradients_are_of_the_loss_that_is_reported():
    smooth = resolve(ObjectiveOptions(label_smoothing=0.2))
    plain = CLASSIFICATION.mean_loss(SCORES, BATCH)
    assert float(smooth.mean_loss(SCORES, BATCH)) == float(plain)
    drawn = smooth.mean_loss_towards(SCORES, TARGETS, BATCH)
    assert float(drawn) == float(plain)


def test_one_of_several_targets():
    objective = resolve(ObjectiveOptions(target=1))
    several = Batch((), (torch.zeros(6, 2), TARGETS), 6)
    assert float(objective.mean_loss(SCORES, several)) == float(
        CLASSIFICATION.mean_loss(SCORES, BATCH)
    )
    with pytest.raises(TypeError):
        CLASSIFICATION.mean_loss(SCORES, Batch((), None, 6))


@pytest.mark.parametrize("role", ["loss", "metric"])
def test_a_module_that_did_not_come_is_named(role):
    options = {"loss": "module"} if role == "loss" else {"metric": "module"}
    direction = {} if role == "loss" else {"higher_is_better": True}
    with pytest.raises(ObjectiveModuleInvalid, match=f"asks for `{role}: module`") as caught:
        resolve(ObjectiveOptions.model_validate(options | direction))
    assert caught.value.where == f"{role}_model_id"


def test_the_output_by_a_number_in_the_recipe():
    objective = resolve(ObjectiveOptions(output=1))
    output = (torch.zeros(6, 3), SCORES)
    assert objective.scores(output) is SCORES
