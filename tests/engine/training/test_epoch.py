"""An epoch that begins at any of its steps ends with the bits of one that begins with its first."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from secateur.recipe import Agp, PruneStage, Rigl

from engine.masks import masked_count, prune_elements
from engine.training.finetune import train
from engine.training.gradual import GradualPruning, Ramp
from engine.training.movement import MovementRecord
from engine.training.rigl import RiggedLottery
from engine.training.state import TrainingState
from tests.engine.training.test_distillation import Restless
from tests.engine.training.test_finetune import (
    Observer,
    make_program,
    options,
    run_of,
    same,
    weights,
)


class Within(Observer):
    """Keeps the states within epochs, as a checkpoint would."""

    def __init__(self):
        super().__init__()
        self.within = []

    def step_finished(self, state):
        self.epoch_finished(state)
        self.within.append(self.states.pop())


class Every:
    """A state after every n-th step."""

    def __init__(self, steps):
        self.steps, self.count = steps, 0

    def due_after_step(self):
        self.count += 1
        return self.count % self.steps == 0

    def due_after_epoch(self):
        return False


def agp(**changes):
    stage = PruneStage.model_validate(
        {
            "stage": "prune",
            "granularity": "element",
            "allocation": {"scope": "global", "amount": 0.6},
            "schedule": {"kind": "agp", "rounds": 2, "every_steps": 3, "finetune": {"epochs": 3}}
            | changes,
        }
    )
    assert isinstance(stage.schedule, Agp)

    def grow(student, masks, number):
        return prune_elements(student, masks, stage, seed=0, round_number=number, rounds=2)[0]

    return GradualPruning(Ramp(stage.schedule, "schedule"), grow)


def told(heard):
    """Without what follows the clock."""
    return [item for item in heard.metrics if not item[0].startswith("live/")]


def resumed_everywhere(program, run, every):
    whole = Within()
    expected = train(program, run, whole)
    halting = Within()
    again = train(program, dataclasses.replace(run, pace=Every(every)), halting)
    assert same(weights(expected.program), weights(again.program))  # looking changes nothing
    assert len(halting.within) >= 3
    for state in halting.within:
        assert state.under_way.step % run.per_epoch != 0
        torch.rand(3)  # another process has another random state
        heard = Within()
        got = train(program, run, heard, resume=state)
        assert same(weights(expected.program), weights(got.program)), state.under_way.step
        assert same(expected.masks, got.masks)
        assert got.stopped == expected.stopped
        # Even what is reported of the epoch that was cut in two.
        assert told(heard) == [item for item in told(whole) if item[2] > state.epoch]
    return expected


@pytest.mark.parametrize(
    "every", [5, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["some", "all"]
)
def test_everything_at_once(tmp_path, every):
    """Momentum, dropout, BatchNorm, growing masks, averages, accumulation, early stopping, and a
    teacher that draws random numbers and counts its calls."""
    program = make_program(tmp_path / "m.pt")
    teacher = make_program(tmp_path / "t.pt", Restless())
    settings = options(
        epochs=3,
        batch_size=16,
        accumulate=2,
        optimizer={"lr": 0.05, "momentum": 0.9, "nesterov": True},
        ema={"decay": 0.9},
        early_stopping={"patience": 2},
        distillation={"alpha": 0.5, "temperature": 2.0},
        clip_norm=1.0,
    )
    run = dataclasses.replace(run_of(settings), sparsity=agp(), teacher=teacher)
    whole = resumed_everywhere(program, run, every)
    assert masked_count(whole.masks) == round(0.6 * 2214)


@pytest.mark.parametrize(
    "every", [7, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["some", "all"]
)
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_moments_under_exchanged_masks(tmp_path, every, kind):
    program = make_program(tmp_path / "m.pt")
    mask = {"linear.weight": torch.rand(10, 216, generator=torch.Generator().manual_seed(0)) > 0.5}
    schedule = Rigl(kind="rigl", every_steps=3, finetune=options(epochs=3))
    rule = RiggedLottery(schedule, frozenset(mask), "schedule")
    settings = options(epochs=3, keep="last", optimizer={"kind": kind, "lr": 0.002})
    resumed_everywhere(
        program, dataclasses.replace(run_of(settings, masks=mask), sparsity=rule), every
    )


def test_part_of_a_training_that_follows_movement(tmp_path):
    # Steps 3 to 13 of 16: the first and the last epoch are parts of one.
    program = make_program(tmp_path / "m.pt")
    run = dataclasses.replace(
        run_of(options(epochs=2)), sparsity=MovementRecord(), first_step=3, stop_step=14
    )
    assert [run.steps_of(epoch) for epoch in (0, 1)] == [range(3, 8), range(8, 14)]
    resumed_everywhere(program, run, 3)


def test_states_of_older_versions_begin_an_epoch(tmp_path):
    program = make_program(tmp_path / "m.pt")
    observer = Observer()
    whole = train(program, run_of(), observer)
    plain = observer.states[0].to_plain()
    del plain["under_way"]
    resumed = train(program, run_of(), Observer(), resume=TrainingState.from_plain(plain))
    assert same(weights(whole.program), weights(resumed.program))
