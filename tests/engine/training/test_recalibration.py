"""Statistics of BatchNorm measured anew, by hand and against torch's own."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from pydantic import ValidationError
from secateur.recipe import RecalibrateStage
from torch import Tensor, nn

from engine.data.splits import Split
from engine.errors import InputsDoNotFit, TrainingDiverged, TrainingRuleUnmet
from engine.torchscript.program import Program
from engine.training.recalibration import Recalibration, recalibrate
from tests.engine.training.test_finetune import Small, make_program, same, splits, weights


def run_of(inputs, **changes):
    split = Split("train", (inputs,), ("train/inputs/0",), None, "")
    plain = Recalibration(
        split,
        samples=1000,
        batch_size=4,
        momentum=None,
        seed=0,
        purpose="t",
        field="recipe.stages.1",
    )
    return dataclasses.replace(plain, **changes)


def quiet(done, total):
    pass


class Norm(nn.Module):
    """BatchNorm of one channel, on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


@pytest.mark.parametrize("traced", [False, True])
def test_by_hand(tmp_path, traced):
    if traced:
        torch.jit.save(torch.jit.trace(Norm().eval(), torch.zeros(2, 1)), tmp_path / "m.pt")
        program = Program.load(tmp_path / "m.pt")
    else:
        program = make_program(tmp_path / "m.pt", Norm())
    values = torch.tensor([[0.0], [2.0], [4.0], [6.0], [5.0], [7.0]])
    told = []
    result = recalibrate(program, run_of(values, batch_size=6), lambda *x: told.append(x))
    # One batch: mean 4, unbiased variance (16 + 4 + 0 + 4 + 1 + 9) / 5
    assert weights(result)["norm.running_mean"].tolist() == [4.0]
    assert weights(result)["norm.running_var"].tolist() == pytest.approx([6.8])
    assert told == [(1, 1)]
    assert weights(program)["norm.running_mean"].tolist() == [0.0]  # the program given
    assert not result.module.training

    # Two batches of three: whatever the seed drew, means and variances weigh the same.
    run = run_of(values, batch_size=3)
    first, second = (batch.inputs[0].flatten() for batch in run.stream())
    mean = (first.mean() + second.mean()) / 2
    square = (first.var() + first.mean() ** 2 + second.var() + second.mean() ** 2) / 2
    two = weights(recalibrate(program, run, quiet))
    torch.testing.assert_close(two["norm.running_mean"], mean.reshape(1))
    torch.testing.assert_close(two["norm.running_var"], (square - mean**2).reshape(1))

    # With a momentum they move from 0 and 1: 3/4 x 0 + 1/4 x 4, 3/4 x 1 + 1/4 x 6.8
    moved = weights(recalibrate(program, run_of(values, batch_size=6, momentum=0.25), quiet))
    assert moved["norm.running_mean"].tolist() == [1.0]
    assert moved["norm.running_var"].tolist() == pytest.approx([2.45])


def test_batches_weigh_by_their_samples(tmp_path):
    program = make_program(tmp_path / "m.pt", Norm())
    run = run_of(torch.arange(6.0).reshape(6, 1), batch_size=4)
    batches = [batch.inputs[0].flatten() for batch in run.stream()]
    assert [len(batch) for batch in batches] == [4, 2]
    means = weights(recalibrate(program, run, quiet))["norm.running_mean"]
    assert means.tolist() == pytest.approx([2.5])  # of 0 .. 5, not the mean of two means


@pytest.mark.parametrize("traced", [False, True])
def test_it_equals_torch_in_training_mode_without_dropout(tmp_path, traced):
    torch.manual_seed(0)
    module = Small()
    program = make_program(tmp_path / "m.pt", copy.deepcopy(module), traced=traced)
    inputs = splits()[0].inputs[0][:64]
    # `make_program` seeds anew and does not build the module: the weights are the same.
    reference = copy.deepcopy(module).train()
    reference.drop.p = 0.0
    reference.norm.momentum = 1.0
    reference(inputs)
    result = weights(recalibrate(program, run_of(inputs, batch_size=64), quiet))
    # Samples come in another order; sums round differently.
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(result[f"norm.{name}"], getattr(reference.norm, name))
    untouched = weights(program)
    assert all(
        torch.equal(result[name], untouched[name]) for name in untouched if "running" not in name
    )


def test_the_seed_draws_the_samples(tmp_path):
    program = make_program(tmp_path / "m.pt", Small())
    inputs = splits()[0].inputs[0]
    one, again, other = (
        weights(recalibrate(program, run_of(inputs, samples=32, seed=seed), quiet))
        for seed in (1, 1, 2)
    )
    assert same(one, again)
    assert not same(one, other)


class Twice(nn.Module):
    """One BatchNorm normalises both halves, one in a loop."""

    def __init__(self, loop: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.loop = loop

    def forward(self, x: Tensor) -> Tensor:
        if self.loop:
            for _ in range(x.shape[1]):
                x = self.norm(x)
            return x
        return self.norm(self.norm(x) + 1.0)


@pytest.mark.parametrize("loop", [False, True])
def test_a_norm_that_is_used_again_needs_a_momentum(tmp_path, loop):
    program = make_program(tmp_path / "m.pt", Twice(loop))
    inputs = torch.randn(8, 2)
    with pytest.raises(TrainingRuleUnmet, match=r"`norm.running_mean` .* more than once") as caught:
        recalibrate(program, run_of(inputs), quiet)
    assert caught.value.where == "recipe.stages.1.momentum"
    moved = weights(recalibrate(program, run_of(inputs, momentum=0.1), quiet))
    assert not torch.equal(moved["norm.running_var"], torch.ones(2))


def test_without_batch_norm_there_is_nothing_to_do(tmp_path):
    program = make_program(tmp_path / "m.pt", nn.Linear(2, 2))
    with pytest.raises(TrainingRuleUnmet, match="no BatchNorm") as caught:
        recalibrate(program, run_of(torch.zeros(4, 2)), quiet)
    assert caught.value.where == "recipe.stages.1"


def test_bad_inputs_name_their_place(tmp_path):
    program = make_program(tmp_path / "m.pt", Norm())
    with pytest.raises(TrainingDiverged, match=r"norm.running_mean"):
        recalibrate(program, run_of(torch.full((4, 1), torch.nan)), quiet)
    with pytest.raises(TrainingDiverged, match=r"norm.running_var") as caught:
        recalibrate(program, run_of(torch.zeros(1, 1)), quiet)  # one value per channel
    assert "batch_size" in caught.value.hint
    with pytest.raises(InputsDoNotFit) as refused:
        recalibrate(program, run_of(torch.zeros(4, 2)), quiet)
    assert refused.value.where == "recipe.stages.1.batch_size"


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"batch_size": 1}, {"momentum": 0}, {"momentum": 1.5}, {"epochs": 1}]
)
def test_what_a_recipe_may_not_say(wrong):
    assert RecalibrateStage(stage="recalibrate").momentum is None
    with pytest.raises(ValidationError):
        RecalibrateStage.model_validate({"stage": "recalibrate"} | wrong)
