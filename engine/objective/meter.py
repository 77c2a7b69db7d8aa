"""Loss and metrics of a split, batch by batch, with one number for all of them at the end.

Sums lie on the device, and nothing waits for a number before the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from secateur.report import Accuracy

from engine.data.batches import Batch
from engine.objective.metrics import Share, Tally
from engine.objective.objective import Objective
from engine.objective.reading import Pair, Reader


@dataclass(frozen=True)
class Evaluation:
    """What a split says of a program.

    Attributes:
        loss: mean over all terms, without label smoothing.
        top1: right answers, where accuracy is measured: one per sample, or per position of dense
            predictions.
        metrics: every metric by name, the one that decides first.
        higher_is_better: the direction of that one.
        reduced_to: samples that were run at a time where memory was too small for more.
    """

    loss: float
    top1: Accuracy | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    higher_is_better: bool = True
    reduced_to: int | None = None

    @property
    def accuracy(self) -> Accuracy:
        """Top-1 of a classifier."""
        if self.top1 is None:
            raise ValueError("accuracy was not measured")
        return self.top1

    @property
    def decides(self) -> str:
        """Name of the metric that decides."""
        return next(iter(self.metrics), "accuracy")

    @property
    def value(self) -> float:
        """Of that metric."""
        return self.metrics[self.decides] if self.metrics else self.accuracy.top1


class Meter:
    """Sums over the batches of a split."""

    def __init__(self, objective: Objective, device: str) -> None:
        self._objective = objective
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._terms: Any = 0
        self._tallies: dict[str, Tally] = {
            one.name: one.begin(device) for one in objective.metrics if one.begin is not None
        }

    def add(self, output: Any, batch: Batch) -> None:
        """Take in a batch: the model's output for its samples, and its targets."""
        objective = self._objective
        read: dict[Reader, Pair] = {}
        for reader in objective.readers:
            read[reader] = reader.read(output, batch)
        pair = read[objective.loss.reader]
        self._loss += objective.loss.total(pair)
        self._terms = self._terms + pair.terms
        for metric in objective.metrics:
            if metric.name in self._tallies:
                self._tallies[metric.name].add(read[metric.reader])

    def result(self) -> Evaluation:
        """Over all batches; waits for the device."""
        terms = int(self._terms)
        loss = float(self._loss) / terms if terms else math.nan
        values = {
            one.name: one.of_loss(loss) if one.of_loss else self._tallies[one.name].value()
            for one in self._objective.metrics
        }
        counts = self._tallies.get("accuracy")
        top1 = None
        if isinstance(counts, Share) and counts.total:
            top1 = Accuracy(correct=counts.right, total=counts.total, top1=counts.value())
        return Evaluation(loss, top1, values, self._objective.decides.higher_is_better)
