"""When a checkpoint is due, by a clock of the test's own."""

from __future__ import annotations

from secateur.recipe import Checkpoints

from engine.pipeline.pace import CheckpointPace


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def train(pace, clock, *, steps, step_seconds, cost, per_epoch=10**9):
    """Times of the checkpoints within so many steps, and the seconds that they took."""
    taken, spent = [], 0.0
    for step in range(1, steps + 1):
        clock.now += step_seconds
        due = pace.due_after_epoch() if step % per_epoch == 0 else pace.due_after_step()
        if due:
            taken.append(step)
            clock.now += cost
            spent += cost
            pace.written()
    return taken, spent


def test_cheap_checkpoints_come_every_ten_seconds():
    clock = Clock()
    taken, _ = train(CheckpointPace(None, clock=clock), clock, steps=35, step_seconds=1, cost=0.01)
    assert taken == [10, 20, 30]


def test_dear_checkpoints_take_three_percent_of_the_time():
    clock = Clock()
    pace = CheckpointPace(None, clock=clock)
    taken, spent = train(pace, clock, steps=2000, step_seconds=1, cost=3)
    # 3 s / 0.03 = 100 s after the first, whose cost nobody knew
    assert taken == [10, *range(110, 2001, 100)]
    assert spent / (clock.now - 100) <= 0.031


def test_after_an_epoch_nothing_but_the_share_counts():
    clock = Clock()
    pace = CheckpointPace(None, clock=clock)
    # 0.02 s / 0.03 is 0.67 s: every epoch of 1 s has one, and every second one of 0.5 s
    taken, _ = train(pace, clock, steps=8, step_seconds=1, cost=0.02, per_epoch=1)
    assert taken == [1, 2, 3, 4, 5, 6, 7, 8]
    taken, _ = train(pace, clock, steps=8, step_seconds=0.5, cost=0.02, per_epoch=1)
    assert taken == [2, 4, 6, 8]


def test_a_recipe_gets_what_it_asks_for():
    clock = Clock()
    pace = CheckpointPace(Checkpoints(steps=3), clock=clock)
    assert train(pace, clock, steps=10, step_seconds=1, cost=50)[0] == [3, 6, 9]
    pace = CheckpointPace(Checkpoints(seconds=2.5), clock=clock)
    assert train(pace, clock, steps=10, step_seconds=1, cost=0)[0] == [3, 6, 9]
    pace = CheckpointPace(Checkpoints(steps=4, seconds=60), clock=clock)
    # after every epoch of 6 steps as well, and steps count from the last of either
    assert train(pace, clock, steps=12, step_seconds=1, cost=0, per_epoch=6)[0] == [4, 6, 10, 12]


def test_one_that_must_be_written_sets_the_cost():
    clock = Clock()
    pace = CheckpointPace(None, clock=clock)
    pace.begin()
    clock.now += 6
    pace.written()
    assert train(pace, clock, steps=450, step_seconds=1, cost=6)[0] == [200, 400]
