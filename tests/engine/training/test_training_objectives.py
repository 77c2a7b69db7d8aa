"""Trainings by other losses: what is minimised, what is kept, when they end."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from secateur.recipe import EarlyStopping
from secateur.recipe_objective import ObjectiveOptions
from torch import Tensor, nn

from engine.data.batches import Batch
from engine.data.splits import Split
from engine.evidence import Evidence
from engine.evidence.gradients import gradients
from engine.objective.meter import Evaluation
from engine.objective.objective import resolve
from engine.training.finetune import train
from engine.training.judging import EpochJudge
from engine.training.run import TrainingRun
from engine.training.state import Best
from engine.training.stopping import Patience
from tests.engine.training.test_finetune import Observer, make_program, options

X = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
Y = torch.tensor([[1.0], [0.0], [5.0], [0.5]])


class Line(nn.Module):
    """y = 0.5 x."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        self.linear.weight.data.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def run_of(objective, **changes):
    split = Split("train", (X,), ("train/inputs/0",), Y, "train/targets/0")
    sgd = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    asked = {"epochs": 1, "batch_size": 4, "optimizer": sgd, "lr_schedule": "constant"}
    return TrainingRun(
        options=options(**(asked | changes)),
        train=split,
        validation=split,
        masks={},
        seed=0,
        purpose="test",
        field="recipe.stages.0",
        objective=resolve(ObjectiveOptions(loss=objective)),
    )


# Errors d = 0.5 x - y: -0.5, 1, -3.5, 1.5. Gradients of the mean towards the weight:
#   mse        2 mean(d x) = 2 (-0.5 + 2 - 10.5 + 6) / 4 = -1.5
#   l1         mean(sign(d) x) = (-1 + 2 - 3 + 4) / 4 = 0.5
#   smooth_l1  mean(d x where |d| < 1, sign(d) x elsewhere) = (-0.5 + 2 - 3 + 4) / 4 = 0.625
STEPS = {"mse": -1.5, "l1": 0.5, "smooth_l1": 0.625}


@pytest.mark.parametrize("loss", STEPS)
def test_one_step_by_hand(tmp_path, loss):
    program = make_program(tmp_path / "line.pt", Line())
    trained = train(program, run_of(loss, keep="last"), Observer()).program
    weight = float(trained.parameters()["linear.weight"].detach())
    assert weight == pytest.approx(0.5 - 0.1 * STEPS[loss])


def test_a_training_minimises_its_own_loss_and_is_judged_by_the_objective(tmp_path):
    observer = Observer()
    program = make_program(tmp_path / "line.pt", Line())
    trained = train(program, run_of("mse", loss="l1", keep="last"), observer).program
    weight = float(trained.parameters()["linear.weight"].detach())
    assert weight == pytest.approx(0.5 - 0.1 * STEPS["l1"])
    assert observer.values("train/loss") == [pytest.approx((0.5 + 1 + 3.5 + 1.5) / 4)]
    assert observer.values("train/mse") == [pytest.approx((0.25 + 1 + 12.25 + 2.25) / 4)]
    after = (weight * X - Y).square().mean()
    assert observer.values("validation/loss") == [pytest.approx(float(after))]
    assert observer.values("validation/mse") == [pytest.approx(float(after))]


@pytest.mark.parametrize("loss", STEPS)
def test_gradients_of_criteria_are_of_the_objectives_loss(tmp_path, loss):
    program = make_program(tmp_path / "line.pt", Line())
    run = run_of(loss)
    evidence = Evidence(example=(X,), split=run.train, batch_size=4, objective=run.objective)
    ((share, size, found),) = gradients(program, evidence)
    assert (share, size) == (1.0, 4)
    assert float(found["linear.weight"]) == pytest.approx(STEPS[loss])


def test_the_fisher_information_of_the_square_is_about_its_own_noise(tmp_path):
    program = make_program(tmp_path / "line.pt", Line())
    run = run_of("mse")
    evidence = Evidence(
        example=(X,), split=run.train, batch_size=4, objective=run.objective, target="teacher",
        teacher=program, seed=3,
    )  # fmt: skip
    # Towards targets drawn around the output the gradient is 2 mean(noise x), not that of the data.
    ((_, _, found),) = gradients(program, evidence)
    assert float(found["linear.weight"]) != pytest.approx(STEPS["mse"], abs=1e-3)
    assert abs(float(found["linear.weight"])) < 6


def measured(value, loss=1.0, *, rises=False):
    return Evaluation(loss, None, {"perplexity": value}, rises)


def test_patience_waits_for_a_metric_that_falls():
    patience = Patience(EarlyStopping(patience=2, min_delta=0.1))
    for epoch, value in enumerate([5.0, 4.0, 3.95, 4.5]):
        patience.see(measured(value), epoch)
    assert patience.exhausted
    assert patience.reason() == (
        "validation perplexity did not fall by more than 0.1 in 2 epochs; it was 4 in epoch 2"
    )
    resumed = Patience(EarlyStopping(patience=2, min_delta=0.1))
    resumed.recall(patience.memory())
    assert resumed.reason() == patience.reason()


def test_the_best_is_the_lowest_where_lower_is_better():
    best = Best(epoch=1, metric=4.0, loss=0.5, tensors={})
    assert best.beaten_by(3.9, 0.9, higher_is_better=False)
    assert best.beaten_by(4.0, 0.4, higher_is_better=False)
    assert not best.beaten_by(4.1, 0.1, higher_is_better=False)


def test_samples_without_targets_have_no_part_in_the_loss_by_targets():
    run = run_of("mse")
    judge = EpochJudge(run)
    some = Batch((X,), Y, 4, labelled=torch.tensor([True, False, False, True]))
    loss = judge.loss(0.5 * X, some)
    assert float(loss) == pytest.approx((0.25 + 2.25) / 2)
    assert judge.averages()["train/loss"] == pytest.approx((0.25 + 2.25) / 2)


def test_a_judge_goes_on_from_its_memory():
    run = run_of("mse")
    whole, first, second = EpochJudge(run), EpochJudge(run), EpochJudge(run)
    halves = [Batch((X[:3],), Y[:3], 3), Batch((X[3:],), Y[3:], 1)]
    for judge in (whole, first):
        judge.loss(0.5 * halves[0].inputs[0], halves[0])
    kept = first.memory()
    second.recall(kept)
    for judge in (whole, second):
        judge.loss(0.5 * halves[1].inputs[0], halves[1])
    assert second.averages() == whole.averages()
    assert second.averages()["train/mse"] == pytest.approx((0.25 + 1 + 12.25 + 2.25) / 4)
    assert dataclasses.is_dataclass(run)
