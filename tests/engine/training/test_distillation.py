"""Distillation, worked out by hand, and in whole trainings."""

from __future__ import annotations

import dataclasses
import io
from math import inf, log

import pytest
import torch
from torch import Tensor, nn

from engine.data.splits import Split
from engine.errors import TrainingRuleUnmet
from engine.objective.objective import CLASSIFICATION
from engine.torchscript.program import Program
from engine.training.distillation import Teacher, agreeing, soft_loss
from engine.training.evaluation import evaluate
from engine.training.finetune import finetune, train
from engine.training.run import TrainingRun
from tests.engine.training.test_finetune import (
    Observer,
    Small,
    make_program,
    options,
    run_of,
    same,
    splits,
    weights,
)


def taught(alpha, temperature=4.0, **changes):
    return options(distillation={"alpha": alpha, "temperature": temperature}, **changes)


def unlabelled(split):
    return dataclasses.replace(split, targets=None)


# The teacher scores (2 ln 3, 0): at T = 2 that is p = (3/4, 1/4).
# The student scores (0, 2 ln 4): at T = 2 that is q = (1/5, 4/5), at T = 1 (1/17, 16/17).
# KL(p || q) = 3/4 ln(15/4) + 1/4 ln(5/16) = 0.7005292
TEACHER = torch.tensor([[2 * log(3), 0.0]])
STUDENT = torch.tensor([[0.0, 2 * log(4)]])
KL = 0.75 * log(15 / 4) + 0.25 * log(5 / 16)


def test_soft_loss_and_its_gradient_by_hand():
    student = STUDENT.clone().requires_grad_()
    loss = soft_loss(student, TEACHER, temperature=2.0)
    assert float(loss.detach()) == pytest.approx(2.8021167, rel=1e-6)
    loss.backward()
    # T (q - p) = 2 (1/5 - 3/4, 4/5 - 1/4)
    assert student.grad.flatten().tolist() == pytest.approx([-1.1, 1.1], rel=1e-6)


def test_soft_loss_is_the_mean_over_positions_and_classes_are_the_second_dimension():
    # Two samples of three places; one place differs, five agree.
    teacher, student = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    teacher[1, :, 2], student[1, :, 2] = TEACHER[0], STUDENT[0]
    assert float(soft_loss(student, teacher, temperature=2.0)) == pytest.approx(4 * KL / 6)
    assert int(agreeing(student, teacher)) == 5


def test_a_class_that_both_rule_out_has_no_share():
    teacher = torch.tensor([[2 * log(3), 0.0, -inf]])
    student = torch.tensor([[0.0, 2 * log(4), -inf]], requires_grad=True)
    loss = soft_loss(student, teacher, temperature=2.0)
    assert float(loss.detach()) == pytest.approx(4 * KL)
    loss.backward()
    assert student.grad.flatten().tolist() == pytest.approx([-1.1, 1.1, 0.0])


def test_half_types_are_taken_to_float32():
    teacher, student = TEACHER.half(), STUDENT.half()
    found = soft_loss(student, teacher, temperature=3.0)
    assert found.dtype == torch.float32
    assert torch.equal(found, soft_loss(student.float(), teacher.float(), temperature=3.0))


class Scores(nn.Module):
    """Scores that are two weights, whatever is asked."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 2, bias=False)
        self.linear.weight.data = scores.reshape(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def one_step(tmp_path, distillation, *, labelled=True, **changes):
    """One step of SGD at rate 0.1 on two samples of class 1; the two weights, and what is told."""
    ones = torch.ones(2, 1)
    split = Split("train", (ones,), ("x",), torch.tensor([1, 1]) if labelled else None, "y")
    sgd = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    asked = {"epochs": 1, "optimizer": sgd, "lr_schedule": "constant"}
    run = TrainingRun(
        options=options(**asked, distillation=distillation, **changes),
        train=split,
        validation=None,
        masks={},
        seed=0,
        purpose="test",
        field="recipe.stages.0",
        teacher=make_program(tmp_path / "teacher.pt", Scores(TEACHER)),
    )
    observer = Observer()
    trained = finetune(make_program(tmp_path / "student.pt", Scores(STUDENT)), run, observer)
    told = {name: value for name, value, _ in observer.metrics}
    return trained.parameters()["linear.weight"].flatten().tolist(), told


def test_a_step_by_hand_at_temperature_2_and_half_a_share(tmp_path):
    moved, told = one_step(tmp_path, {"alpha": 0.5, "temperature": 2.0})
    # 1/2 (1/17 - 2 * 11/20) = -0.5205882 for the first score; the other the reverse
    assert moved == pytest.approx([0.05205882, 2 * log(4) - 0.05205882], rel=1e-5)
    assert told["train/loss"] == pytest.approx(0.5 * log(17 / 16) + 0.5 * 4 * KL, rel=1e-6)
    assert told["train/distillation"] == pytest.approx(4 * KL, rel=1e-6)
    assert (told["train/accuracy"], told["train/agreement"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("alpha", "temperature", "gradient"),
    [
        (0.0, 2.0, 1 / 17),
        (0.25, 2.0, 0.75 / 17 - 0.25 * 1.1),
        (1.0, 2.0, -1.1),
        # p = (9/10, 1/10) and q = (1/17, 16/17)
        (1.0, 1.0, 1 / 17 - 0.9),
    ],
)
def test_share_and_temperature_decide_the_step(tmp_path, alpha, temperature, gradient):
    moved, _ = one_step(tmp_path, {"alpha": alpha, "temperature": temperature})
    assert moved == pytest.approx([-0.1 * gradient, 2 * log(4) + 0.1 * gradient], rel=1e-5)


def test_labels_are_smoothed_and_the_teacher_is_not(tmp_path):
    moved, _ = one_step(tmp_path, {"alpha": 0.5, "temperature": 2.0}, label_smoothing=0.2)
    # towards (0.1, 0.9) instead of (0, 1)
    assert moved[0] == pytest.approx(-0.1 * (0.5 * (1 / 17 - 0.1) + 0.5 * -1.1), rel=1e-5)


def test_without_labels_the_step_is_that_of_the_teacher_alone(tmp_path):
    with_labels, told = one_step(tmp_path, {"alpha": 1.0, "temperature": 2.0})
    without, untold = one_step(tmp_path, {"alpha": 1.0, "temperature": 2.0}, labelled=False)
    assert with_labels == without == pytest.approx([0.11, 2 * log(4) - 0.11], rel=1e-5)
    assert untold["train/loss"] == untold["train/distillation"] == pytest.approx(4 * KL)
    assert told["train/accuracy"] == 1.0
    assert "train/accuracy" not in untold


def test_labels_that_have_a_share_must_be_there(tmp_path):
    with pytest.raises(ValueError, match="needs a split with targets"):
        one_step(tmp_path, {"alpha": 0.5}, labelled=False)


class Restless(nn.Module):
    """Draws random numbers and counts its calls, although it is in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.small = Small()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.small(x) * self.calls + torch.rand(10)


def test_a_teacher_without_a_share_changes_no_bit(tmp_path):
    # Small has dropout: its draws would be others after a teacher that draws.
    program = make_program(tmp_path / "m.pt")
    teacher = make_program(tmp_path / "t.pt", Restless())
    plain = weights(finetune(program, run_of(), Observer()))
    observer = Observer()
    run = dataclasses.replace(run_of(taught(0.0)), teacher=teacher)
    assert same(plain, weights(finetune(program, run, observer)))
    assert observer.values("train/distillation")[0] > 0


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_resuming_after_any_epoch_gives_the_same_bits(tmp_path, alpha):
    program = make_program(tmp_path / "m.pt")
    teacher = make_program(tmp_path / "t.pt", Restless())
    before = weights(teacher)
    run = dataclasses.replace(run_of(taught(alpha, epochs=3)), teacher=teacher)
    observer = Observer()
    whole = weights(finetune(program, run, observer))
    assert len(observer.states) == 3
    for state in observer.states:
        torch.rand(7)  # a resumed process has another random state
        assert same(whole, weights(finetune(program, run, Observer(), resume=state)))
    assert same(before, weights(teacher))
    assert all(parameter.grad is None for parameter in teacher.parameters().values())


def test_a_student_learns_from_inputs_alone(tmp_path):
    train_split, held_out = splits(1024)
    upload = finetune(
        make_program(tmp_path / "m.pt"),
        dataclasses.replace(run_of(options(epochs=8)), train=train_split, validation=held_out),
        Observer(),
    )
    known = evaluate(upload, held_out, device="cpu").accuracy.top1
    torch.manual_seed(5)
    fresh = make_program(tmp_path / "f.pt", Small())
    with torch.no_grad():
        for parameter in fresh.parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    start = evaluate(fresh, held_out, device="cpu").accuracy.top1
    run = dataclasses.replace(
        run_of(taught(1.0, epochs=6), validation=False),
        train=unlabelled(train_split),
        teacher=upload,
    )
    observer = Observer()
    trained = train(fresh, run, observer).program
    found = evaluate(trained, held_out, device="cpu").accuracy.top1
    assert start < 0.4
    assert known > 0.8
    assert found > known - 0.05
    assert observer.values("train/agreement")[-1] > 0.8
    assert observer.values("train/accuracy") == []


def test_the_teacher_is_asked_without_gradients(tmp_path):
    program = make_program(tmp_path / "t.pt", Scores(TEACHER))
    for parameter in program.parameters().values():
        parameter.requires_grad_()
    scores = Teacher(program, CLASSIFICATION, kind="soft_targets", field="recipe.stages.0").scores(
        [torch.ones(1, 1)], STUDENT
    )
    assert torch.equal(scores, TEACHER)
    assert not scores.requires_grad


class OneScore(nn.Module):
    def __init__(self, *, classes: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 1)
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        score = self.linear(x.flatten(1))
        return score if self.classes else score[:, 0]


@pytest.mark.parametrize("classes", [False, True])
def test_what_scores_no_classes_cannot_teach(tmp_path, classes):
    program = make_program(tmp_path / "m.pt", OneScore(classes=classes))
    plain = run_of(taught(1.0), validation=False)
    run = dataclasses.replace(plain, train=unlabelled(plain.train), teacher=program)
    with pytest.raises(TrainingRuleUnmet, match="compares class scores") as caught:
        finetune(program, run, Observer())
    assert caught.value.where == "recipe.stages.0.distillation"


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    nine = nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
    run = dataclasses.replace(run_of(taught(0.5)), teacher=make_program(tmp_path / "t.pt", nine))
    with pytest.raises(TrainingRuleUnmet, match=r"float32\[32, 9\] and float32\[32, 10\]"):
        finetune(make_program(tmp_path / "m.pt"), run, Observer())


def test_the_teacher_keeps_its_float_type(tmp_path):
    halves = make_program(tmp_path / "m.pt", Small().to(torch.bfloat16))
    train_split, _ = splits()
    lesson = Split("train", (train_split.inputs[0].to(torch.bfloat16),), ("x",), None, "y")
    run = dataclasses.replace(run_of(taught(1.0), validation=False), train=lesson, teacher=halves)
    trained = finetune(halves, run, Observer())
    assert trained.parameters()["conv.weight"].dtype == torch.bfloat16
    assert Program.load(io.BytesIO(trained.to_bytes()).getvalue()).parameters().keys() == (
        halves.parameters().keys()
    )
