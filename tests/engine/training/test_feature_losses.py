"""Feature losses against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import io
import math

import pytest
import torch
from torch import nn

from engine.errors import TrainingRuleUnmet
from engine.features.followed import Followed
from engine.features.matching import Matched, match_features
from engine.features.outputs import find_features
from engine.tape import record
from engine.torchscript.program import Program
from engine.training.feature_losses import attention, cosine, mse
from engine.training.finetune import train
from engine.training.matching import FeatureJudge
from tests.engine.training.test_finetune import Observer
from tests.engine.training.test_recording import a_run


def test_mse_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert mse(student, teacher, 1).item() == 2.5  # (1 + 4) / 2


def test_cosine_by_hand():
    student = torch.tensor([[[3.0, 0.0], [1.0, 1.0]]])
    teacher = torch.tensor([[[3.0, 4.0], [2.0, 2.0]]])
    # Positions (3, 0)·(3, 4) = 9 / (3 * 5) and (1, 1)·(2, 2): 1 - (0.6 + 1) / 2.
    assert cosine(student, teacher, 2).item() == pytest.approx(0.2, abs=1e-6)
    # Channels in dimension 1: (3, 1)·(3, 2) = 11 / sqrt(10 * 13), (0, 1)·(4, 2) = 2 / sqrt(20).
    expected = 1 - (11 / math.sqrt(130) + 2 / math.sqrt(20)) / 2
    assert cosine(student, teacher, 1).item() == pytest.approx(expected, abs=1e-6)


def test_attention_by_hand_with_other_numbers_of_channels():
    student = torch.tensor([[[3.0, 2.0]]])  # one channel, two positions: map (9, 4)
    teacher = torch.tensor([[[0.0, 1.0], [0.0, 2.0]]])  # two channels: map (0, 5), unit (0, 1)
    norm = math.sqrt(81 + 16)
    expected = (9 / norm) ** 2 + (4 / norm - 1) ** 2
    assert attention(student, teacher, 1).item() == pytest.approx(expected, rel=1e-6)
    assert attention(teacher, 7 * teacher, 1).item() == pytest.approx(0, abs=1e-12)


def test_half_types_are_compared_in_float32():
    big = torch.full((1, 2), 300.0, dtype=torch.float16)
    assert mse(big, torch.zeros_like(big), 1).item() == 90_000.0  # beyond float16


def matched(loss="mse", weight=1.0, kept=None, path="fc"):
    nowhere = (None, 0)
    return Matched(path, loss, weight, 1, kept or {}, nowhere, nowhere)


def test_weights_add_up_and_the_teacher_is_cut_to_the_surviving_channels():
    judge = FeatureJudge(
        [matched(weight=0.5, kept={1: torch.tensor([0, 2])}), matched(weight=2.0, path="head")],
        field="recipe.stages.0",
        device="cpu",
    )
    student = {"0": torch.tensor([[1.0, 1.0]]), "1": torch.tensor([[1.0]])}
    teacher = {"0": torch.tensor([[1.0, 9.0, 3.0]]), "1": torch.tensor([[0.0]])}
    # 0.5 * (0 + 4) / 2 + 2 * 1
    assert judge.loss(student, teacher).item() == 3.0
    assert judge.averages() == {
        "train/features": 3.0,
        "train/features/mse/fc": 2.0,
        "train/features/mse/head": 1.0,
    }
    again = FeatureJudge(judge._matched, field="", device="cpu")
    again.recall(judge.memory())
    assert again.averages() == judge.averages()


@pytest.mark.parametrize(
    ("student", "message"),
    [(None, "behind control flow"), (torch.zeros(1, 3), "over the channels that are left")],
)
def test_what_cannot_be_compared_is_refused(student, message):
    judge = FeatureJudge([matched()], field="recipe.stages.0", device="cpu")
    with pytest.raises(TrainingRuleUnmet, match=message) as refused:
        judge.loss({"0": student}, {"0": torch.zeros(1, 2)})
    assert refused.value.where == "recipe.stages.0.distillation.features"


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False)

    def forward(self, x):
        return self.head(self.inner(x))


class Hidden(Two):
    """Computes the inner feature of the example, whose inputs are all ones, and of no other."""

    def forward(self, x):
        if x.sum() == 3:  # noqa: SIM108  a branch
            hidden = self.inner(x)
        else:
            hidden = x[:, :2]
        return self.head(hidden)


def program_of(module):
    return Program.load(_bytes(torch.jit.script(module.eval())))


def _bytes(module):
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


def prepared(student, teacher, entries, **options):
    inputs = (torch.ones(1, 3),)
    tape = record(teacher, inputs)
    features = find_features(tape)
    student.followed = teacher.followed = Followed(tape, features.found)
    run = a_run(distillation={"alpha": 0.0, "features": entries}, **options)
    found, _ = match_features(
        teacher,
        student,
        run.options.distillation.features,
        inputs,
        features,
        field="recipe.stages.0.distillation.features",
    )
    return run, found


def test_the_gradient_of_a_step_is_that_of_the_features_as_well():
    """One step of plain SGD, against autograd on the eager module."""
    torch.manual_seed(0)
    student, teacher = Two(), Two()
    options = {
        "epochs": 1,
        "batch_size": 6,
        "optimizer": {"lr": 0.1, "momentum": 0, "weight_decay": 0},
        "keep": "last",
    }
    entries = [{"layer": "inner", "weight": 3.0}]
    program = program_of(student)
    run, found = prepared(program, program_of(teacher), entries, **options)
    run = dataclasses.replace(run, teacher=program_of(teacher), features=found)
    observer = Observer()
    done = train(program, run, observer)

    x, y = run.train.inputs[0], run.train.targets
    difference = (student.inner(x) - teacher.inner(x)).square().mean()
    loss = nn.functional.cross_entropy(student(x), y) + 3 * difference
    loss.backward()
    for name, parameter in student.named_parameters():
        expected = parameter.detach() - 0.1 * parameter.grad
        torch.testing.assert_close(done.program.parameters()[name], expected)
    assert observer.values("train/features/mse/inner") == [pytest.approx(difference.item())]
    assert observer.values("train/loss") == [pytest.approx(loss.item())]


def test_a_feature_behind_control_flow_that_a_batch_does_not_take():
    torch.manual_seed(0)
    program, entries = program_of(Hidden()), [{"layer": "inner"}]
    run, found = prepared(program, program_of(Hidden()), entries, epochs=1)
    run = dataclasses.replace(run, teacher=program_of(Hidden()), features=found)
    with pytest.raises(TrainingRuleUnmet, match="`inner` was not computed on a batch"):
        train(program, run, Observer())
