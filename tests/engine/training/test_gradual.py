from __future__ import annotations

import dataclasses

import pytest
import torch
from secateur.recipe import Agp, PruneStage

from engine.errors import TrainingRuleUnmet
from engine.masks import masked_count, prune_elements
from engine.training.finetune import train
from engine.training.gradual import GradualPruning, Ramp
from engine.training.sparsity import Moment
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    weights,
)


def rule_of(**changes):
    schedule = Agp.model_validate({"kind": "agp", "rounds": 2} | changes)
    return GradualPruning(Ramp(schedule, "schedule"), lambda *asked: asked[-1])


def rounds_by_step(rule, steps):
    changes = (rule.change(None, None, {}, Moment(step, 4, steps)) for step in range(steps))
    return {step: change.masks for step, change in enumerate(changes) if change is not None}


def test_when_it_grows():
    # 4 steps an epoch; the value is the round
    assert rounds_by_step(rule_of(), 16) == {4: 1, 8: 2}
    assert rounds_by_step(rule_of(start_epoch=1, every_steps=3), 16) == {7: 1, 10: 2}
    assert rounds_by_step(rule_of(initial=0.1), 16) == {0: 0, 4: 1, 8: 2}
    settled = [rule_of().settled(step, 4) for step in (4, 8, 9)]
    assert settled == [False, False, True]


def test_a_ramp_that_does_not_fit_is_refused():
    rule_of(every_steps=7).check(4, 15)
    with pytest.raises(TrainingRuleUnmet, match=r"ramp ends at step 14, .* at step 14") as caught:
        rule_of(every_steps=7).check(4, 14)
    assert caught.value.where == "schedule.rounds"


def ramped(tmp_path, **changes):
    program = make_program(tmp_path / "m.pt")
    schedule = {"kind": "agp", "rounds": 2, "finetune": {"epochs": 4}}
    stage = PruneStage.model_validate(
        {
            "stage": "prune",
            "granularity": "element",
            "allocation": {"scope": "global", "amount": 0.64},
            "schedule": schedule,
        }
    )

    def grow(student, masks, number):
        return prune_elements(student, masks, stage, seed=0, round_number=number, rounds=2)[0]

    rule = GradualPruning(Ramp(stage.schedule, "schedule"), grow)
    return program, dataclasses.replace(run_of(options(epochs=4, **changes)), sparsity=rule)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_masks_grow_and_resuming_gives_the_same_bits(tmp_path, keep):
    program, run = ramped(tmp_path, keep=keep)
    observer = Observer()
    whole = train(program, run, observer)
    # Of 54 + 2160 weights 0.64 (1 - 1 / 8) go first, then 0.64
    counts = [masked_count(state.masks) for state in observer.states]
    assert counts == [0, 1240, 1417, 1417]
    earlier, later = (observer.states[number].masks for number in (1, 2))
    assert all(not bool((later[name] & ~mask).any()) for name, mask in earlier.items())
    for name, mask in whole.masks.items():
        assert torch.count_nonzero(whole.program.parameters()[name][~mask]) == 0
    for state in observer.states:
        resumed = train(program, run, Observer(), resume=state)
        assert same(weights(whole.program), weights(resumed.program))
        assert same(whole.masks, resumed.masks)


def test_the_best_epoch_is_one_after_the_ramp(tmp_path):
    program, run = ramped(tmp_path, keep="best", optimizer={"lr": 1e-9}, batch_norm="frozen")
    observer = Observer()
    trained = train(program, run, observer)
    assert [state.best is None for state in observer.states] == [True, True, False, False]
    assert observer.states[-1].best.epoch == 3  # nothing moves: the first that counts stays
    assert masked_count(trained.masks) == 1417
