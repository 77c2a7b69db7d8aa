r"""What a training run records while it goes on: points of its curves, and how it is now.

A run of T steps has a point after every k-th of them, k = \lceil T / 200 \rceil, and one after
the last step it takes. So a curve has at most 200 points and the one of an early end, whatever the
length of the run, and which steps they are depends on the recipe alone: a resumed run gives the
same curve as an undisturbed one, to the bit on a CPU. The loss of a point is the mean over the
samples since the point before, from sums kept on the device:

    \bar L_j = (S_{jk} - S_{(j-1)k}) / (n_{jk} - n_{(j-1)k}),   S_t = \sum_{i \le t} L_i b_i

with b_i the samples of micro-batch i and n_t their sum. Reading S waits for the device, which
happens at points and at live samples only.

Live samples follow the clock: one after `LIVE_SECONDS`, then rarer the longer the run lasts, so
that n samples take about LIVE_SECONDS e^{n / MOST_EVEN} at the end and no run fills the job's
history. Speed and memory are kept apart from everything that is compared between runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from secateur.report_training import (
    RateSearch,
    TrainingCurves,
    TrainingEpoch,
    TrainingPace,
    TrainingPoint,
)
from torch import Tensor

from engine.training.memory import begin_peak, memory_held, memory_kind
from engine.training.run import TrainingObserver, TrainingRun
from engine.training.state import TrainingState

MOST_POINTS = 200
"""Points of a curve."""
LIVE_SECONDS = 3.0
"""Between two live samples at first."""
MOST_EVEN = 400
"""Live samples at equal distances; after them a distance is this part of the time so far."""


@dataclass
class _Mark:
    """Where a window of running sums begins: of losses, or of seconds."""

    total: float = 0.0
    samples: int = 0

    def move(self, total: float, samples: int) -> tuple[float, int]:
        """What was added since; the next window begins here."""
        added = total - self.total, samples - self.samples
        self.total, self.samples = total, samples
        return added


class Recording:
    """Records one run, and passes on to the observer what it hears.

    Attributes:
        steps: optimiser steps of the run's schedule.
        stride: between two points.
        points, epochs, pace: so far.
        search: of the learning rate, where the recipe asked for one.
    """

    def __init__(self, run: TrainingRun, observer: TrainingObserver) -> None:
        self.steps = run.per_epoch * run.options.epochs
        self.stride = max(1, -(-self.steps // MOST_POINTS))
        self.points: list[TrainingPoint] = []
        self.epochs: dict[int, dict[str, float]] = {}
        self.pace = TrainingPace(memory=memory_kind(run.device))
        self.search: RateSearch | None = None
        self._device = run.device
        self._world = run.world
        self._observer = observer
        self._sum = torch.zeros((), dtype=torch.float64, device=run.device)
        self._samples = 0
        self._mark, self._live = _Mark(), _Mark()
        # By the clock.
        self._timed, self._live_timed = _Mark(), _Mark()
        self._seconds = 0.0
        self._since: float | None = None
        self._began = self._live_told = time.monotonic()
        begin_peak(run.device)

    def batch(self, loss: Tensor, samples: int) -> None:
        """A micro-batch went forward: its mean loss, [], and how many samples it held."""
        if self._since is None:
            self._since = time.monotonic()
        self._sum += loss.detach().to(torch.float64) * samples
        self._samples += samples

    def sums(self) -> tuple[Tensor, int]:
        """What the batches so far added up to; for `take_back`."""
        return self._sum.clone(), self._samples

    def take_back(self, sums: tuple[Tensor, int]) -> None:
        """Forget the batches since then: their step begins anew."""
        self._sum.copy_(sums[0])
        self._samples = sums[1]

    def step(self, step: int, *, lr: float, norm: Tensor | None) -> None:
        """An optimiser step (from 0) was taken.

        Args:
            step: of the whole schedule.
            lr: its learning rate.
            norm: of the gradients before clipping, [], where it was computed.
        """
        taken = step + 1
        if taken % self.stride == 0 or taken == self.steps:
            self._add_point(taken, lr, norm)
        now = time.monotonic()
        if now - self._live_told >= max(LIVE_SECONDS, (now - self._began) / MOST_EVEN):
            self._live_told = now
            self._tell(taken, lr, norm)

    def pause(self) -> None:
        """What follows (validation, a checkpoint) is not training."""
        if self._since is not None:
            self._seconds += time.monotonic() - self._since
            self._since = None

    # What the run says of its epochs is part of the record.

    def progress(self, current: int, total: int, unit: str) -> None:
        """Passed on."""
        self._observer.progress(current, total, unit)

    def metric(self, name: str, value: float, step: int) -> None:
        """Kept by epoch, and passed on."""
        if isfinite(value):
            self.epochs.setdefault(step, {})[name] = value
        self._observer.metric(name, value, step)

    def remark(self, message: str) -> None:
        """Passed on."""
        self._observer.remark(message)

    def step_finished(self, state: TrainingState) -> None:
        """Passed on."""
        self._observer.step_finished(state)

    def epoch_finished(self, state: TrainingState) -> None:
        """Passed on."""
        self._observer.epoch_finished(state)

    def to_plain(self) -> dict[str, Any]:
        """For a checkpoint: plain data."""
        return {
            "points": [point.model_dump() for point in self.points],
            "epochs": {epoch: dict(values) for epoch, values in self.epochs.items()},
            "pace": self.pace.model_dump(),
            "search": None if self.search is None else self.search.model_dump(),
            **self._world.summed(
                {
                    "sum": float(self._sum),
                    "samples": self._samples,
                    "mark_sum": self._mark.total,
                    "mark_samples": self._mark.samples,
                }
            ),
        }

    def recall(self, plain: Mapping[str, Any] | None) -> None:
        """Go on from a checkpoint; older ones have no record, and the curve begins here."""
        if plain is None:
            return
        self.points = [TrainingPoint.model_validate(point) for point in plain["points"]]
        self.epochs = {epoch: dict(values) for epoch, values in plain["epochs"].items()}
        self.pace = TrainingPace.model_validate(plain["pace"])
        names = ("sum", "samples", "mark_sum", "mark_samples")
        sums = self._world.own({name: plain[name] for name in names})
        self._sum.fill_(sums["sum"])
        self._samples = sums["samples"]
        self._mark = _Mark(sums["mark_sum"], sums["mark_samples"])
        self._live = _Mark(sums["sum"], sums["samples"])
        # The time before belongs to another process.
        self._timed, self._live_timed = _Mark(0.0, self._samples), _Mark(0.0, self._samples)

    def curves(self, *, stage_index: int, label: str) -> TrainingCurves:
        """The record for the report, of a step of this name."""
        return TrainingCurves(
            stage_index=stage_index,
            label=label,
            steps=self.steps,
            stride=self.stride,
            points=self.points,
            epochs=[
                TrainingEpoch(epoch=epoch, values=values)
                for epoch, values in sorted(self.epochs.items())
            ],
            pace=self.pace,
            rate_search=self.search,
        )

    def _add_point(self, taken: int, lr: float, norm: Tensor | None) -> None:
        # Every process comes to every point, so that all can be asked there.
        loss = self._mean_since(self._mark, everywhere=True)
        rate = self._rate_since(self._timed)
        # A loss that is no number ends the run, with an error that says so.
        if loss is not None and isfinite(loss):
            shown = None if norm is None else float(norm)
            self.points.append(
                TrainingPoint(
                    step=taken,
                    loss=loss,
                    lr=lr,
                    gradient_norm=shown if shown is not None and isfinite(shown) else None,
                )
            )
        if rate is not None:
            self.pace.steps.append(taken)
            self.pace.samples_per_second.append(rate)
            self.pace.memory_bytes.append(memory_held(self._device))

    def _tell(self, taken: int, lr: float, norm: Tensor | None) -> None:
        values = {
            "live/loss": self._mean_since(self._live),
            "live/lr": lr,
            "live/gradient_norm": None if norm is None else float(norm),
            "live/samples_per_second": self._rate_since(self._live_timed),
            "live/memory_bytes": float(memory_held(self._device)),
        }
        for name, value in values.items():
            if value is not None and isfinite(value):
                self._observer.metric(name, value, taken)

    def _mean_since(self, mark: _Mark, *, everywhere: bool = False) -> float | None:
        """Mean loss of the samples since the mark; None where there were none.

        Args:
            mark: moves to here.
            everywhere: in all processes of the run, not only in this one.
        """
        loss, samples = mark.move(float(self._sum), self._samples)
        if everywhere:
            loss, samples = self._world.summed({"loss": loss, "samples": samples}).values()
        return loss / samples if samples else None

    def _rate_since(self, mark: _Mark) -> float | None:
        """Samples a second since the mark, by all processes of the run, which are equally fast;
        None where the clock did not move."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        seconds, samples = mark.move(self._seconds + running, self._samples)
        return samples * self._world.size / seconds if samples and seconds > 0 else None
