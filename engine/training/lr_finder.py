r"""`lr: auto`: a learning rate found by a range test before the training.

A copy of the program is trained for N <= 100 steps while the rate rises from a_1 to a_N by the same
factor every step,

    a_k = a_1 (a_N / a_1)^{(k - 1) / (N - 1)},

on losses L_k smoothed with b = 0.9 (an exponential average without the weight of its start):

    S_k = \sum_{i \le k} (1 - b) b^{k - i} L_i / (1 - b^k)

(Smith 2017, "Cyclical Learning Rates for Training Neural Networks", WACV, section 3.3, where the
rate rises evenly). Too small a rate leaves the loss where it is, too large a one drives it up; in
between it falls. The rate taken is a tenth of the one at the smallest S_k: at the smallest itself
the loss is about to rise. The test ends early where S_k is above the smallest by three times S_1,
or L_k is no number. Where S_k nowhere falls below S_1 by a hundredth of it, no rate of the range
teaches the model anything, and the error says so.

The copy trains as the run will: its optimiser, precision, masks, clipping, penalty and teacher. The
order of its samples and its dropout have seeds of their own, so the run itself is the one that the
rate, written into the recipe, would give.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import count, islice
from math import inf, isfinite

import torch
from secateur.report_training import RateSearch

from engine.calling import plain_execution
from engine.errors import TrainingDiverged, TrainingRuleUnmet
from engine.seeds import derive
from engine.torchscript.program import Program
from engine.training.denormals import flushed_denormals
from engine.training.epoch import Samples, samples_of_steps
from engine.training.judging import EpochJudge
from engine.training.run import TrainingObserver, TrainingRun
from engine.training.state import TrainingState
from engine.training.step import find_gradients, move_parameters
from engine.training.student import begin

_STEPS = 100
_SMOOTHING = 0.9
_RISEN = 3.0
_FALL = 0.01
_RANGES = {"sgd": (1e-5, 10.0)}
_RANGE = (1e-6, 1.0)
"""Of optimisers that divide by the size of gradients."""


def with_rate(
    program: Program,
    run: TrainingRun,
    observer: TrainingObserver,
    resume: TrainingState | None,
) -> tuple[TrainingRun, RateSearch | None]:
    """The run with a rate in the place of `auto`, and how it was found.

    Raises:
        TrainingRuleUnmet: the loss falls at no rate of the range.
        EngineError: see `engine.training.finetune.train`.
    """
    if run.options.optimizer.lr != "auto":
        return run, None
    held = None if resume is None or resume.recording is None else resume.recording.get("search")
    found = find_rate(program, run) if held is None else RateSearch.model_validate(held)
    if held is None:
        for number, (rate, loss) in enumerate(zip(found.rates, found.losses, strict=True), 1):
            observer.metric("lr_search/lr", rate, number)
            observer.metric("lr_search/loss", loss, number)
        observer.metric("lr_search/chosen", found.chosen, len(found.rates))
    return _at(run, found.chosen), found


def find_rate(program: Program, run: TrainingRun) -> RateSearch:
    """The range test; the program is not written to.

    Raises:
        TrainingRuleUnmet: the loss falls at no rate of the range.
    """
    low, high = _RANGES.get(run.options.optimizer.kind, _RANGE)
    # No rule changes masks in a test, and an average would have nothing to average.
    options = run.options.model_copy(update={"ema": None, "early_stopping": None})
    test = dataclasses.replace(
        _at(dataclasses.replace(run, options=options), low),
        purpose=f"{run.purpose}/lr",
        sparsity=None,
        first_epoch=0,
        first_step=0,
        stop_step=None,
    )
    student = begin(program, test)
    rates: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    with flushed_denormals(), plain_execution():
        for step, samples in enumerate(_stream(test)):
            torch.manual_seed(derive(test.seed, test.purpose, "draws", step))
            judge = EpochJudge(test)
            find_gradients(student, test, judge, samples)
            # Of all processes of the run, so that all of them end the test at the same step.
            judge.recall(test.world.summed(judge.memory()))
            loss = judge.averages()["train/loss"]
            if not isfinite(loss):
                break
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            smoothed.append(average / (1 - _SMOOTHING ** (step + 1)))
            rates.append(low * (high / low) ** (step / (_STEPS - 1)))
            if smoothed[-1] - min(smoothed) > _RISEN * abs(smoothed[0]):
                break
            try:
                move_parameters(student, test, rates[-1])
            except TrainingDiverged:
                break
    return _chosen(rates, smoothed, run)


def _chosen(rates: list[float], smoothed: list[float], run: TrainingRun) -> RateSearch:
    least = min(smoothed, default=inf)
    if not smoothed or smoothed[0] - least < _FALL * abs(smoothed[0]):
        tried = f"from {rates[0]:.0e} to {rates[-1]:.0e}" if rates else "at all"
        raise TrainingRuleUnmet(
            f"`lr: auto` found no learning rate: the loss does not fall at rates {tried}",
            hint="give a rate such as 0.01 for `sgd` or 0.001 for `adamw`; a model that has "
            "nothing left to learn from the train split needs no training",
            where=f"{run.field}.optimizer.lr",
        )
    chosen = rates[smoothed.index(least)] / 10
    return RateSearch(rates=rates, losses=smoothed, chosen=chosen)


def _stream(run: TrainingRun) -> Iterator[Samples]:
    """Samples of the steps of the test, over as many epochs as they take."""
    steps = (samples for epoch in count() for samples in samples_of_steps(run, epoch, first=0))
    return islice(steps, _STEPS)


def _at(run: TrainingRun, rate: float) -> TrainingRun:
    optimizer = run.options.optimizer.model_copy(update={"lr": rate})
    options = run.options.model_copy(update={"optimizer": optimizer})
    return dataclasses.replace(run, options=options)
