from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError
from secateur.recipe import Recipe, WeightAveraging
from torch import nn

from engine.errors import TrainingRuleUnmet
from engine.training.averaging import WeightAverage, averaged_tensors
from engine.training.evaluation import evaluate
from engine.training.finetune import finetune, train
from tests.engine.training.test_accumulation import NoStatistics
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    splits,
    weights,
)
from tests.engine.training.test_rigl import rigl_run


def averaged(values, decay, dtype=torch.float32):
    weight = torch.zeros(1, dtype=dtype)
    average = WeightAverage(WeightAveraging(decay=decay), {"w": weight})
    for value in values:
        weight.fill_(value)
        average.add({})
    return float(average.tensors["w"])


def test_average_by_hand():
    # Decay 1/2 weighs 1, 2 and 4 by 1/8, 1/4 and 1/2, together 7/8: (1/8 + 1/2 + 2) / (7/8) = 3.
    assert averaged([1.0], 0.5) == 1.0
    assert averaged([1.0, 2.0], 0.5) == pytest.approx(5 / 3)
    assert averaged([1.0, 2.0, 4.0], 0.5) == pytest.approx(3.0)
    # Decay 0.9: 0.81, 0.9 and 1, together 2.71.
    assert averaged([1.0, 2.0, 4.0], 0.9) == pytest.approx((0.81 + 1.8 + 4.0) / 2.71)
    # A decay near 1 gives the plain mean.
    assert averaged([1.0, 2.0, 6.0], 0.999999) == pytest.approx(3.0, rel=1e-5)


def test_constants_keep_their_bits():
    assert averaged([0.1] * 50, 0.97) == float(torch.tensor(0.1))


def test_half_types_are_averaged_in_float32():
    # 1 and the next number of bfloat16; the average lies between them.
    assert averaged([1.0, 1.0078125], 0.5, torch.bfloat16) == pytest.approx(1 + 2 / 3 / 128)


def test_masks_by_hand():
    weight = torch.tensor([1.0, 2.0, 0.0])
    average = WeightAverage(WeightAveraging(decay=0.5), {"w": weight})
    average.add({"w": torch.tensor([True, True, False])})
    # The second goes, and the third comes back at 5: not at 2/3 of it.
    weight.copy_(torch.tensor([4.0, 0.0, 5.0]))
    average.add({"w": torch.tensor([True, False, True])})
    assert average.tensors["w"].tolist() == pytest.approx([3.0, 0.0, 5.0])


def after_steps(program, settings, steps):
    run = dataclasses.replace(run_of(settings), stop_step=steps)
    return weights(finetune(program, run, Observer()))


@pytest.mark.parametrize(("begin", "first"), [(0, 1), (1, 5)])
def test_a_run_gives_the_average_of_its_steps(tmp_path, begin, first):
    program = make_program(tmp_path / "m.pt", NoStatistics())
    settings = {"epochs": 2, "batch_size": 64, "keep": "last", "lr_schedule": "constant"}
    plain = options(**settings)
    steps = [after_steps(program, plain, number) for number in range(first, 9)]
    total = sum(0.8 ** (len(steps) - 1 - i) for i in range(len(steps)))
    ema = options(**settings, ema={"decay": 0.8, "from_epoch": begin})
    got = weights(finetune(program, run_of(ema), Observer()))
    for name, tensor in got.items():
        expected = sum(0.8 ** (len(steps) - 1 - i) * one[name] for i, one in enumerate(steps))
        torch.testing.assert_close(tensor, expected / total, rtol=0, atol=1e-6)
        assert not torch.equal(tensor, steps[-1][name])


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_average_is_what_is_validated_and_kept(tmp_path, keep):
    program = make_program(tmp_path / "m.pt")
    settings = options(epochs=4, keep=keep, ema={"decay": 0.9, "from_epoch": 1})
    observer = Observer()
    result = finetune(program, run_of(settings), observer)
    accuracies = observer.values("validation/accuracy")
    found = evaluate(result, splits()[1], device="cpu").accuracy.top1
    # The first epoch is not averaged, so no candidate.
    assert found == (max(accuracies[1:]) if keep == "best" else accuracies[-1])
    plain = Observer()
    finetune(program, run_of(options(epochs=4, keep=keep)), plain)
    losses, others = observer.values("validation/loss"), plain.values("validation/loss")
    assert losses[0] == others[0]
    assert all(one != other for one, other in zip(losses[1:], others[1:], strict=True))
    # Training itself does not see the average.
    assert observer.values("train/loss") == plain.values("train/loss")


def test_a_first_epoch_without_average_is_never_kept(tmp_path):
    # From a trained network at such a rate the first epoch is the best one by far.
    program = finetune(make_program(tmp_path / "m.pt"), run_of(options(epochs=6)), Observer())
    wild = {"epochs": 3, "batch_size": 256, "lr_schedule": "constant"}
    wild["optimizer"] = {"lr": 2.0, "momentum": 0.9}
    observer = Observer()
    ema = {"decay": 0.5, "from_epoch": 2}
    result = finetune(program, run_of(options(**wild, ema=ema)), observer)
    accuracies = observer.values("validation/accuracy")
    assert accuracies[0] > accuracies[2]
    assert evaluate(result, splits()[1], device="cpu").accuracy.top1 == accuracies[2]
    assert observer.states[-1].best.epoch == 3


@pytest.mark.parametrize("keep", ["best", "last"])
def test_resuming_gives_the_same_bits(tmp_path, keep):
    program = make_program(tmp_path / "m.pt")
    run = run_of(options(epochs=4, keep=keep, ema={"decay": 0.95, "from_epoch": 1}))
    observer = Observer()
    whole = weights(finetune(program, run, observer))
    assert [state.average["steps"] for state in observer.states] == [0, 8, 16, 24]
    for state in observer.states:
        assert same(whole, weights(finetune(program, run, Observer(), resume=state)))


@pytest.mark.parametrize("keep", ["best", "last"])
def test_masks_that_move_hold_in_the_average(tmp_path, keep):
    program, masks, run = rigl_run(tmp_path, epochs=3, keep=keep, ema={"decay": 0.99})
    observer = Observer()
    whole = train(program, run, observer)
    for name, mask in masks.items():
        assert not torch.equal(whole.masks[name], mask)
        trained = whole.program.parameters()[name]
        assert torch.count_nonzero(trained[~whole.masks[name]]) == 0
    for state in observer.states:
        resumed = train(program, run, Observer(), resume=state)
        assert same(weights(whole.program), weights(resumed.program))
        assert same(whole.masks, resumed.masks)


def test_frozen_layers_keep_every_bit(tmp_path):
    program = make_program(tmp_path / "m.pt")
    before = weights(program)
    run = run_of(options(freeze=["conv", "norm"], ema={"decay": 0.9}))
    after = weights(finetune(program, run, Observer()))
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith(("conv.", "norm.")), name


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(self.first(x)))


def test_shared_weights_are_averaged_once(tmp_path):
    program = make_program(tmp_path / "m.pt", Tied())
    found = averaged_tensors(program, {"first.bias": torch.zeros(4)})
    assert sum(name.endswith(".weight") and "norm" not in name for name in found) == 1
    assert "norm.running_var" in found
    assert "first.bias" not in found
    assert "norm.num_batches_tracked" not in found


def test_a_run_that_ends_before_averaging_is_refused(tmp_path):
    program = make_program(tmp_path / "m.pt")
    run = run_of(options(epochs=3, ema={"decay": 0.9, "from_epoch": 2}))
    with pytest.raises(TrainingRuleUnmet, match="begins after 2 epochs") as caught:
        finetune(program, dataclasses.replace(run, stop_step=16), Observer())
    assert caught.value.where == "recipe.stages.0.ema.from_epoch"


def test_bad_values():
    for ema in ({"decay": 1.0}, {"decay": 0}, {"from_epoch": -1}, {"momentum": 0.9}):
        with pytest.raises(ValidationError):
            options(ema=ema)
    with pytest.raises(ValidationError, match=r"`ema.from_epoch` \(2\) must be fewer"):
        options(epochs=2, ema={"from_epoch": 2})
    schedule = {"kind": "supermask", "mask": "learned", "training": {"ema": {}}}
    stage = {"stage": "prune", "schedule": schedule, "allocation": {"amount": 0.5}}
    with pytest.raises(ValidationError, match=r"`training.ema` acts on weights"):
        Recipe.model_validate({"stages": [stage]})


def test_a_control_of_replayed_epochs_averages_the_same_ones():
    training = {"epochs": 5, "ema": {"from_epoch": 3}}
    schedule = {"kind": "lr_rewind", "rounds": 2, "rewind_to_epoch": 2, "finetune": training}
    stage = {"stage": "prune", "schedule": schedule, "allocation": {"amount": 0.5}}
    found = Recipe.model_validate({"stages": [stage]}).trainings()
    assert [(one.epochs, one.ema.from_epoch) for one in found] == [(3, 1), (3, 1)]
