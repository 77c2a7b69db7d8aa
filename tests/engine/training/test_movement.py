"""Movement accumulated by training, and masks that follow it, by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from secateur.recipe import Agp, FinetuneOptions, PruneStage

from engine.data.splits import Split
from engine.masks import masked_count, prune_elements
from engine.training.finetune import train
from engine.training.gradual import Ramp
from engine.training.movement import MovementPruning, MovementRecord
from engine.training.run import TrainingRun
from engine.training.sparsity import Moment
from tests.engine.scores.networks import linear
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    weights,
)
from tests.engine.training.test_rigl import Six

PLAIN = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}


def one_sample(**changes):
    split = Split("train", (torch.ones(1, 1),), ("x",), torch.tensor([0]), "y")
    asked = {"epochs": 3, "optimizer": PLAIN, "lr_schedule": "constant", "keep": "last"} | changes
    return TrainingRun(
        options=FinetuneOptions.model_validate(asked),
        train=split,
        validation=None,
        masks={},
        seed=0,
        purpose="test",
        field="recipe",
        sparsity=MovementRecord(),
    )


@pytest.mark.parametrize("penalty", [None, {"l2": 0.1}])
def test_three_steps_by_hand(tmp_path, penalty):
    """z = (a, b) on x = 1 with target 0: g = (-p_1, p_1), p_1 = 1 / (1 + e^(a - b)).

    step 1   a = b = 1                     p_1 = 0.5
    step 2   a = 1.5, b = 0.5              p_1 = 0.2689414
    step 3   a = 1.7689414, b = 0.2310586  p_1 = 0.1768433
    """
    program = make_program(tmp_path / "m.pt", linear([[1], [1]]))
    run = one_sample(penalty=penalty)
    train(program, run, Observer())
    a, b = run.sparsity.scores["weight"].flatten().tolist()
    if penalty is None:
        # 0.5 + 1.5 x 0.2689414 + 1.7689414 x 0.1768433; -(0.5 + 0.1344707 + 0.0408612)
        assert (a, b) == pytest.approx((1.2162375, -0.6753319), rel=1e-5)
        assert run.sparsity.scores["weight"].dtype == torch.float64
    else:
        # The penalty moves the weights (b is 0.4 and a 1.4 at step 2) and is no part of g:
        # 0.5 + 1.4 x 0.2689414 + ..., below what it is without
        assert a < 1.2162375
        first = train_one(tmp_path, penalty)
        assert first == pytest.approx([0.5, -0.5])


def train_one(tmp_path, penalty):
    run = one_sample(penalty=penalty, epochs=1)
    train(make_program(tmp_path / "one.pt", linear([[1], [1]])), run, Observer())
    return run.sparsity.scores["weight"].flatten().tolist()


def stage_of(**allocation):
    return PruneStage.model_validate(
        {
            "stage": "prune",
            "granularity": "element",
            "criterion": "movement",
            "allocation": allocation,
            "schedule": {"kind": "agp", "rounds": 2, "finetune": {"epochs": 4}},
        }
    )


def regrow_of(stage):
    def regrow(program, number, scores):
        found = prune_elements(
            program, {}, stage, seed=0, round_number=number, rounds=2, saliency=scores
        )
        return found[0]

    return regrow


def test_masked_weights_are_scored_by_the_value_they_had_and_come_back(tmp_path):
    program = make_program(tmp_path / "m.pt", Six())
    weight = program.parameters()["linear.weight"]
    with torch.no_grad():
        weight.copy_(torch.tensor([[0.5, -0.1, 0.2], [0.3, 0.4, -0.6]]))
    ramp = Ramp(Agp(kind="agp", rounds=2, every_steps=1), "schedule")
    rule = MovementPruning(ramp, regrow_of(stage_of(count=2)), {"linear.weight"})
    optimizer = torch.optim.SGD([weight], lr=0.0, momentum=0.9)
    masks = {}

    def step(number, gradient):
        weight.grad = torch.tensor(gradient)
        change = rule.change(program, optimizer, masks, Moment(number, 4, 16))
        optimizer.step()
        return change

    ones = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert step(0, ones) is None
    # S = -2 w = [[-1, 0.2, -0.4], [-0.6, -0.8, 1.2]]: the two lowest are no small weights
    masks = step(1, ones).masks
    assert masks["linear.weight"].tolist() == [[False, True, True], [True, False, True]]
    assert torch.equal(weight, torch.tensor([[0.0, -0.1, 0.2], [0.3, 0.0, -0.6]]))
    momentum = optimizer.state[weight]["momentum_buffer"]
    # 0.9 + 1 where nothing changed, and what was forgotten gets the gradient of the step
    torch.testing.assert_close(momentum, torch.tensor([[1.0, 1.9, 1.9], [1.9, 1.0, 1.9]]))
    # With g = [[-3, 2, 1], [1, -1, 1]] S gains -w g, w = 0.5 and 0.4 where they are masked:
    # [[-1 + 1.5, 0.2 + 0.2, -0.4 - 0.2], [-0.6 - 0.3, -0.8 + 0.4, 1.2 + 0.6]]
    masks = step(2, [[-3.0, 2.0, 1.0], [1.0, -1.0, 1.0]]).masks
    assert masks["linear.weight"].tolist() == [[True, True, False], [False, True, True]]
    assert torch.equal(weight, torch.tensor([[0.5, -0.1, 0.0], [0.0, 0.4, -0.6]]))
    expected = torch.tensor([[0.5, 0.4, -0.6], [-0.9, -0.4, 1.8]])
    torch.testing.assert_close(rule.scores["linear.weight"].float(), expected)


def ramped(tmp_path, **changes):
    program = make_program(tmp_path / "m.pt")
    stage = stage_of(scope="global", amount=0.64)
    names = {"conv.weight", "linear.weight"}
    ramp = Ramp(stage.schedule, "schedule")

    def rule():
        return MovementPruning(ramp, regrow_of(stage), names)

    run = run_of(options(epochs=4, **changes))
    return program, lambda: dataclasses.replace(run, sparsity=rule())


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_weights_come_back_and_resuming_gives_the_same_bits(tmp_path, kind, keep):
    rates = {"kind": kind, "lr": 0.05 if kind == "sgd" else 0.003}
    program, run = ramped(tmp_path, keep=keep, optimizer=rates)
    observer, whole_run = Observer(), run()
    whole = train(program, whole_run, observer)
    # Of 54 + 2160 weights 0.64 (1 - 1 / 8) go first, then 0.64
    assert [masked_count(state.masks) for state in observer.states] == [0, 1240, 1417, 1417]
    earlier, later = (observer.states[number].masks for number in (1, 2))
    assert any(bool((later[name] & ~mask).any()) for name, mask in earlier.items())
    for name, mask in whole.masks.items():
        assert torch.count_nonzero(whole.program.parameters()[name][~mask]) == 0
    for state in observer.states:
        resumed_run = run()
        resumed = train(program, resumed_run, Observer(), resume=state)
        assert same(weights(whole.program), weights(resumed.program))
        assert same(whole.masks, resumed.masks)
        assert same(whole_run.sparsity.scores, resumed_run.sparsity.scores)


def test_a_rule_that_is_used_again_starts_from_nothing(tmp_path):
    program, run = ramped(tmp_path)
    once = run()
    first = train(program, once, Observer())
    assert same(first.masks, train(program, once, Observer()).masks)
