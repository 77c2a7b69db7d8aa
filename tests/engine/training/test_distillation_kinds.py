"""The teacher's loss on outputs that are no classes, by hand."""

from __future__ import annotations

import dataclasses
from math import sqrt

import pytest
import torch
from secateur.recipe import Distillation
from secateur.recipe_objective import ObjectiveOptions

from engine.errors import TrainingRuleUnmet
from engine.objective.objective import CLASSIFICATION, resolve
from engine.training.distillation import Teacher, taught_loss
from engine.training.finetune import train
from tests.engine.training.test_distillation import Scores
from tests.engine.training.test_finetune import Observer, Small, make_program, options, run_of

REGRESSION = resolve(ObjectiveOptions(loss="mse"))
STUDENT = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
TEACHER = torch.tensor([[4.0, 3.0], [0.0, 5.0]])


def loss_of(kind, student=STUDENT, teacher=TEACHER, objective=REGRESSION):
    return float(taught_loss(student, teacher, Distillation(kind=kind), objective))


def test_cosine_by_hand():
    # Cosines 24 / 25 and 0.
    assert loss_of("cosine") == pytest.approx((1 / 25 + 1) / 2)
    # The length of neither counts.
    assert loss_of("cosine", 7 * STUDENT, TEACHER / 3) == pytest.approx((1 / 25 + 1) / 2)


def test_mse_by_hand():
    assert loss_of("mse") == pytest.approx((1 + 1 + 1 + 25) / 4)


def test_the_kinds_are_three():
    found = {loss_of(kind, objective=CLASSIFICATION) for kind in ("soft_targets", "cosine", "mse")}
    assert len(found) == 3


def test_a_vector_is_a_position_of_classes_or_a_whole_sample():
    student, teacher = torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)
    student[0, 0, 0], student[0, 1, 1] = 1, 1
    teacher[0, 0, 0], teacher[0, 0, 1] = 1, 1
    # By position along dimension 1: (1, 0) with (1, 0), and (0, 1) with (1, 0).
    assert loss_of("cosine", student, teacher, CLASSIFICATION) == pytest.approx(0.5)
    # As one vector of four: 1 / (sqrt 2 sqrt 2).
    assert loss_of("cosine", student, teacher) == pytest.approx(1 - 1 / (sqrt(2) * sqrt(2)))


def test_half_types_are_taken_to_float32():
    for kind in ("cosine", "mse"):
        found = taught_loss(STUDENT.half(), TEACHER.half(), Distillation(kind=kind), REGRESSION)
        assert found.dtype == torch.float32


def test_one_number_a_sample_has_no_direction(tmp_path):
    program = make_program(tmp_path / "t.pt", Scores(torch.tensor([[1.0, 2.0]])))
    teacher = Teacher(program, REGRESSION, kind="cosine", field="recipe.stages.0")
    with pytest.raises(TrainingRuleUnmet, match="float32"):
        teacher.scores([torch.ones(1, 1)], torch.zeros(1, 1))
    assert teacher.scores([torch.ones(1, 1)], torch.zeros(1, 2)).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_a_run_without_targets_learns_from_the_teacher_alone(tmp_path, kind):
    plain = run_of(options(epochs=2, distillation={"kind": kind, "alpha": 1}), validation=False)
    torch.manual_seed(9)
    teacher = make_program(tmp_path / "teacher.pt", Small())
    run = dataclasses.replace(
        plain,
        train=dataclasses.replace(plain.train, targets=None),
        teacher=teacher,
        objective=REGRESSION,
    )
    observer = Observer()
    train(make_program(tmp_path / "student.pt"), run, observer)
    told = observer.values("train/distillation")
    assert told == observer.values("train/loss")
    assert told[-1] < told[0]
    assert observer.values("train/agreement") == []
