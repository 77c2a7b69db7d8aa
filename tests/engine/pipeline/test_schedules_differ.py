"""Every schedule as the steps it takes, written out: none can stand in for another.

What the steps do is worked out by hand elsewhere: totals in selection/test_schedule.py, exchanges,
growths and movement in tests/engine/training, rewinding in test_tickets.py. One pair is equal by
mathematics: `lr_rewind` from epoch 0 replays the whole training, which is what `iterative`
does when that training is its fine-tuning.
"""

from __future__ import annotations

import pytest
from secateur.recipe import Recipe

from engine.lottery.steps import TicketStep
from engine.pipeline.steps import PruneStep, steps_of
from engine.selection.schedule import removed_after
from tests.engine.pipeline.conftest import prune

TRAINING = {"epochs": 4}
SCHEDULES = {
    "one_shot": {},
    "iterative": {"rounds": 3, "finetune": TRAINING},
    "agp": {"rounds": 3, "finetune": TRAINING},
    "lr_rewind": {"rounds": 3, "rewind_to_epoch": 1, "finetune": TRAINING},
    "rigl": {"finetune": TRAINING},
    "imp": {"rounds": 3, "training": TRAINING},
    "imp_rewind": {"rounds": 3, "rewind_epoch": 1, "training": TRAINING},
    "supermask": {"training": TRAINING},
}
# A prune round p, training from epoch n; masks that change in it +; parts of ticket schedules.
ELEMENT = {
    "one_shot": "p",
    "iterative": "p 0 p 0 p 0",
    "agp": "0+",
    "lr_rewind": "p 1 p 1 p 1",
    "rigl": "p 0+",
    "imp": "round p round p round p ticket",
    "imp_rewind": "start round p round p round p ticket",
    "supermask": "round p",
}


def taken(granularity, kind, **changes):
    schedule = {"kind": kind} | SCHEDULES[kind] | changes
    stage = prune(granularity=granularity, allocation={"amount": 0.5}, schedule=schedule)
    steps = steps_of(Recipe.model_validate({"stages": [stage]}))

    def word(step):
        if isinstance(step, PruneStep):
            return "p"
        if isinstance(step, TicketStep):
            return step.part
        return f"{step.first_epoch}{'+' if step.changing else ''}"

    prunes = [step for step in steps if isinstance(step, PruneStep)]
    removed = [
        removed_after(
            step.stage.allocation, 1000, step.round_number, step.rounds, step.stage.schedule
        )
        for step in prunes
    ]
    return " ".join(word(step) for step in steps), removed


@pytest.mark.parametrize("kind", ELEMENT)
def test_steps_on_single_weights(kind):
    assert taken("element", kind)[0] == ELEMENT[kind]


def test_no_two_take_the_same_steps():
    assert len(set(ELEMENT.values())) == len(ELEMENT) == len(SCHEDULES)


def test_rounds_on_channels_differ_by_how_much_goes():
    # 1000 (1 - 0.5^(k / 3)), and 500 (1 - (1 - k / 3)^3)
    assert taken("channel", "iterative") == ("p 0 p 0 p 0", [206, 370, 500])
    assert taken("channel", "agp") == ("p 0 p 0 p 0", [352, 481, 500])


def test_replaying_all_of_a_training_is_iterative_pruning():
    assert taken("channel", "lr_rewind", rewind_to_epoch=0) == taken("channel", "iterative")
