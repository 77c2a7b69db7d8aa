"""What a training run records: its curves, and how it is while it goes on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from secateur.recipe import FinetuneOptions
from torch import nn

from engine.data.splits import Split
from engine.torchscript.program import Program
from engine.training import recording as module
from engine.training.finetune import train
from engine.training.memory import memory_held
from engine.training.recording import MOST_POINTS, Recording
from engine.training.run import TrainingRun
from tests.engine.training.test_finetune import Observer


def split(samples, name="train"):
    torch.manual_seed(1)
    targets = torch.randint(0, 2, (samples,))
    return Split(name, (torch.randn(samples, 3),), (f"{name}/inputs/0",), targets, "targets")


def a_run(samples=6, *, validation=False, **options):
    return TrainingRun(
        options=FinetuneOptions(**{"epochs": 2, "batch_size": 2} | options),
        train=split(samples),
        validation=split(4, "validation") if validation else None,
        masks={},
        seed=0,
        purpose="finetune/0/0",
        field="recipe.stages.0",
    )


def student():
    torch.manual_seed(0)
    return Program(torch.jit.script(nn.Linear(3, 2).eval()), "cpu")


@settings(deadline=None, max_examples=25)
@given(steps=st.integers(1, 700), seed=st.integers(0, 9))
def test_a_curve_is_short_and_its_points_are_the_means_between_them(steps, seed):
    draw = torch.Generator().manual_seed(seed)
    losses = torch.rand(steps, generator=draw).tolist()
    sizes = torch.randint(1, 6, (steps,), generator=draw).tolist()
    recorded = Recording(a_run(samples=2 * len(losses), epochs=1), Observer())
    for step, loss in enumerate(losses):
        recorded.batch(torch.tensor(loss), sizes[step])
        recorded.step(step, lr=0.5, norm=None)
    points = recorded.points
    assert len(points) <= MOST_POINTS
    assert points[-1].step == len(losses)
    begun = 0
    for point in points:
        window = range(begun, point.step)
        total = sum(sizes[step] for step in window)
        mean = sum(losses[step] * sizes[step] for step in window) / total
        assert point.loss == pytest.approx(mean, abs=1e-7)
        begun = point.step


def test_a_run_gives_a_point_for_each_of_few_steps():
    observer = Observer()
    recorded = train(student(), a_run(clip_norm=0.5, validation=True), observer).recording
    curves = recorded.curves(stage_index=1, label="finetune")
    assert [point.step for point in curves.points] == [1, 2, 3, 4, 5, 6]
    assert (curves.steps, curves.stride) == (6, 1)
    assert all(point.gradient_norm > 0 for point in curves.points)
    assert [epoch.epoch for epoch in curves.epochs] == [1, 2]
    told = observer.values("train/loss")
    assert [epoch.values["train/loss"] for epoch in curves.epochs] == told
    # Three batches of two samples: the epoch's mean is the mean of its points.
    for epoch, mean in enumerate(told):
        own = [point.loss for point in curves.points[3 * epoch : 3 * epoch + 3]]
        assert sum(own) / 3 == pytest.approx(mean, rel=1e-6)
    assert {"validation/loss", "validation/accuracy", "lr"} <= set(curves.epochs[0].values)
    assert curves.pace.memory == "process_resident"
    assert len(curves.pace.steps) == len(curves.pace.memory_bytes)


def test_without_clipping_no_gradient_norm_is_shown():
    recorded = train(student(), a_run(), Observer()).recording
    assert {point.gradient_norm for point in recorded.points} == {None}


def test_a_resumed_run_gives_the_curve_of_an_undisturbed_one():
    whole = Observer()
    undisturbed = train(student(), a_run(clip_norm=1.0), whole).recording
    resumed = train(student(), a_run(clip_norm=1.0), Observer(), resume=whole.states[0]).recording
    assert resumed.points == undisturbed.points
    assert resumed.epochs == undisturbed.epochs
    assert resumed.pace.steps == undisturbed.pace.steps


def test_live_samples_follow_the_clock_and_grow_rarer(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    observer = Observer()
    recorded = Recording(a_run(samples=2_000_000, epochs=1), observer)
    for step in range(20_000):
        recorded.batch(_LOSS, 2)
        now[0] += 5
        recorded.step(step, lr=0.1, norm=None)
    losses = observer.values("live/loss")
    # At every step for 2,000 s, then each a 400th of the time so far, rounded up to a step:
    # at most 400 (1 + ln(100,000 / 2,000)).
    assert 1200 < len(losses) <= 1965
    assert set(losses) == {0.25}
    assert set(observer.values("live/samples_per_second")) == {0.4}
    assert all(value > 0 for value in observer.values("live/memory_bytes"))
    assert observer.values("live/gradient_norm") == []
    steps = [step for name, _, step in observer.metrics if name == "live/loss"]
    assert steps[:3] == [1, 2, 3]


_LOSS = torch.tensor(0.25)


def test_time_beside_training_does_not_slow_the_pace_down(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    recorded = Recording(a_run(), Observer())
    for step in range(6):
        recorded.batch(_LOSS, 2)
        now[0] += 1
        recorded.step(step, lr=0.1, norm=None)
        if step == 2:
            recorded.pause()
            now[0] += 1000
    assert recorded.pace.samples_per_second == [2.0] * 6


def test_a_process_holds_memory():
    assert memory_held("cpu") > 10 << 20
    assert memory_held("cpu") < 1 << 40
