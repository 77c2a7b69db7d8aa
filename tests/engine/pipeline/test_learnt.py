"""What a run with a teacher learns from, and what unlabelled samples cost in a batch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from secateur.recipe import FinetuneOptions, Recipe
from torch.nn import functional

from engine.data.batches import batches
from engine.data.splits import Dataset, Split
from engine.errors import DatasetInvalid
from engine.pipeline.learnt import learnt_from
from engine.training.distillation import soft_loss
from engine.training.judging import EpochJudge
from tests.engine.training.test_recording import a_run, split, student

RECIPE = Recipe.model_validate({"stages": [{"stage": "prune", "allocation": {"amount": 0.5}}]})


def dataset(*, train=True, labels=True):
    own = split(4)
    more = Split("unlabelled", (torch.randn(6, 3),), ("unlabelled/inputs/0",), None, "")
    if not labels:
        own = dataclasses.replace(own, targets=None)
    return Dataset(own if train else None, None, more)


def samples(given, **distillation):
    options = FinetuneOptions(epochs=1, distillation=distillation or None)
    return learnt_from(given, options, RECIPE, field="recipe.stages.1").samples


def test_unlabelled_samples_come_in_with_a_teacher():
    assert samples(dataset()) == 4
    assert samples(dataset(), alpha=0.5) == 10
    assert samples(dataset(labels=False), alpha=1) == 10
    assert samples(dataset(train=False), alpha=1) == 6
    assert samples(dataset(), alpha=0.5, unlabelled=False) == 4
    assert samples(dataset(), alpha=0) == 4
    assert samples(dataset(), alpha=0, features=[{"layer": "fc"}]) == 10


@pytest.mark.parametrize("given", [dataset(train=False), dataset(labels=False)])
def test_labels_that_have_a_share_must_be_there(given):
    with pytest.raises(DatasetInvalid):
        samples(given, alpha=0.5)


def test_the_loss_of_a_mixed_batch():
    options = FinetuneOptions(epochs=1, distillation={"alpha": 0.25, "temperature": 2})
    both = learnt_from(dataset(), options, RECIPE, field="recipe.stages.1")
    run = dataclasses.replace(a_run(), options=options, train=both, teacher=student())
    scores = torch.randn(3, 2, generator=torch.Generator().manual_seed(3))
    judge = EpochJudge(run)
    order = torch.tensor([5, 1, 3, 9, 8, 7, 0, 2, 4, 6])
    mixed, unlabelled, *_ = batches(both, 3, device="cpu", order=order)
    teacher = [run.teacher.module(batch.inputs[0]) for batch in (mixed, unlabelled)]
    soft = [soft_loss(scores, given, temperature=2) for given in teacher]
    targets = split(4).targets
    labels = functional.cross_entropy(scores[1:], targets[[1, 3]])
    torch.testing.assert_close(judge.loss(scores, mixed), 0.75 * labels + 0.25 * soft[0])
    # Without a label in the batch the teacher has the share that it has elsewhere.
    torch.testing.assert_close(judge.loss(scores, unlabelled), 0.25 * soft[1])
    assert judge.averages()["train/distillation"] == pytest.approx(float(sum(soft).detach() / 2))
    right = (scores[1:].argmax(1) == targets[[1, 3]]).float().mean()
    assert judge.averages()["train/accuracy"] == pytest.approx(float(right))
