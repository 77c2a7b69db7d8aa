"""The steps of one epoch, from its first or from any other on.

What happens in an epoch depends on its number, on the number of each step, and on what the student
and the judge hold between two steps; on nothing else. The order of the samples is seeded by the
epoch, and what a program draws (dropout) by the step. So an epoch may begin at any of its steps:
where a state was taken after k of them, another process goes on with step k.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice

import torch

from engine.data.batches import Batch, batches, bounds, shuffled
from engine.data.draws import Draw
from engine.seeds import generator
from engine.training.accumulation import MicroBatch, micro_batches
from engine.training.judging import EpochJudge
from engine.training.optimizer import learning_rate
from engine.training.relief import Relief, seed_of_draws
from engine.training.run import TrainingObserver, TrainingRun
from engine.training.state import UnderWay
from engine.training.step import take_step
from engine.training.student import Student
from engine.training.validation import check_finite

_REPORT_SECONDS = 1.0

Samples = Iterator[tuple[MicroBatch, Batch]]
"""Of a step, in micro-batches."""


def train_epoch(
    student: Student, run: TrainingRun, epoch: int, observer: TrainingObserver
) -> float:
    """Take the steps of an epoch (from 0) that are not taken yet, and tell its averages.

    Returns:
        The mean training loss.
    """
    options, per_epoch = run.options, run.per_epoch
    total = per_epoch * options.epochs
    judge = EpochJudge(run)
    steps = run.steps_of(epoch)
    begun, student.under_way = student.under_way, None
    if begun is not None:
        judge.recall(run.world.own(begun.sums))
        steps = range(begun.step, steps.stop)
    samples = samples_of_steps(run, epoch, first=steps.start - epoch * per_epoch)
    reported = time.monotonic()
    for step in steps:
        torch.manual_seed(seed_of_draws(run, step))
        again = partial(samples_of_steps, run, epoch, first=step - epoch * per_epoch)
        relief = Relief(student, run, judge, observer)
        samples = relief.find_gradients(step, samples, again)
        taken = take_step(student, run, step)
        if student.recording is not None:
            student.recording.step(step, lr=taken.rate, norm=taken.norm)
        if time.monotonic() - reported > _REPORT_SECONDS:
            if run.world.size == 1:
                # Clocks differ, and none of several processes may end alone.
                check_finite(judge.total, run, epoch)
            observer.progress(step + 1, total, "steps")
            reported = time.monotonic()
        if step + 1 < steps.stop and _state_is_due(run):
            _pause(student)
            sums = run.world.summed(judge.memory())
            check_finite(float(sums["loss"]), run, epoch)
            observer.step_finished(student.state(run, UnderWay(step + 1, sums)))
    _pause(student)
    judge.recall(run.world.summed(judge.memory()))
    check_finite(judge.total, run, epoch)
    observer.progress((epoch + 1) * per_epoch, total, "steps")
    averages = judge.averages()
    for name, value in averages.items():
        observer.metric(name, value, epoch + 1)
    for name, value in student.precision.counts().items():
        observer.metric(name, value, epoch + 1)
    observer.metric("lr", learning_rate(options, epoch * per_epoch, total), epoch + 1)
    return averages["train/loss"]


def _state_is_due(run: TrainingRun) -> bool:
    return run.world.agree(run.pace is not None and run.pace.due_after_step())


def _pause(student: Student) -> None:
    """Training stands still for what follows."""
    if student.recording is not None:
        student.recording.pause()


def samples_of_steps(run: TrainingRun, epoch: int, *, first: int) -> Generator[Samples]:
    """The micro-batches of every step of an epoch from step `first` (of the epoch) on."""
    options, split, device = run.options, run.train, run.device
    order = shuffled(split.samples, generator(run.seed, run.purpose, "shuffle", epoch))
    before = first * options.accumulate
    draw = Draw.of(run.seed, run.purpose, epoch)
    world = run.world
    ranges = bounds(split.samples, options.batch_size)[before:]
    parts = [
        replace(micro, share=micro.share * part.weight, counted=part.counted)
        for micro, part in zip(
            micro_batches(options, split.samples)[before:],
            (world.part(start, stop) for start, stop in ranges),
            strict=True,
        )
    ]
    made = batches(
        split,
        options.batch_size,
        device=device,
        order=order,
        draw=draw,
        first=before,
        own=lambda start, stop: world.part(start, stop).rows,
    )
    with closing(made):
        pairs = zip(parts, made, strict=True)
        for _ in range(first, run.per_epoch):
            yield islice(pairs, options.accumulate)
