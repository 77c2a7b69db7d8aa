"""Measures a pruned model against the whole one, batch by batch, on the same samples.

One batch and its outputs are in memory at a time. Loss and accuracy take one run of the pruned
model. A drift takes one of the whole model beside it, for its outputs are not kept; where all
samples are one batch they are, and the whole model runs once in the scan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from secateur.report import Accuracy
from torch import Tensor

from engine.calling import plain_execution
from engine.data.batches import Batch, batches, bounds, shuffled
from engine.data.splits import Split
from engine.errors import InputsDoNotFit, ModelRaised
from engine.objective.meter import Meter
from engine.objective.objective import CLASSIFICATION, Objective
from engine.scan.layers import Forward
from engine.seeds import generator
from engine.structure import at_batch_size, map_tensors, pairs, samples_in

Quantity = Literal["drift", "metric", "accuracy", "loss"]


@dataclass(frozen=True)
class Measured:
    """What one run over the samples gives; None where not measured, or not finite."""

    drift: float | None = None
    loss: float | None = None
    accuracy: Accuracy | None = None
    metric: float | None = None


def drawn(split: Split, samples: int | None, seed: int) -> Split:
    """The split, or so many of its samples, drawn by the seed and in the split's order."""
    if samples is None or samples >= split.samples:
        return split
    rows = shuffled(split.samples, generator(seed, "scan"))[:samples].sort().values
    return split.chosen(rows)


class Judge:
    """Measures models on the same samples.

    Args:
        whole: the model as it is.
        data: the samples, or the example where there is no dataset.
        quantity: what is measured; all but a drift needs targets.
        batch_size: samples at a time; a model that takes no other number than its example's gets
            that many, the last batch filled up with samples whose results are dropped.
        example_batch: samples in the example.
        device: where the model lies.
        objective: what loss and metric are.
    """

    def __init__(
        self,
        whole: Forward,
        data: Split | Sequence[Any],
        *,
        quantity: Quantity,
        batch_size: int = 128,
        example_batch: int = 1,
        device: str = "cpu",
        objective: Objective = CLASSIFICATION,
    ) -> None:
        self._objective = objective
        self._whole = whole
        self._data = data
        self._quantity = quantity
        self._device = device
        self._kept: Any = None
        self._size = self._fixed = 0
        if isinstance(data, Split):
            wanted = min(batch_size, data.samples)
            self._size = self._fitting(wanted, example_batch)
            self._fixed = self._size if self._size != wanted else 0

    @property
    def samples(self) -> int:
        """How many it measures on."""
        data = self._data
        return data.samples if isinstance(data, Split) else samples_in(data)

    @torch.no_grad()
    def measure(self, forward: Forward) -> Measured:
        """Run a model over the samples.

        Raises:
            EngineError: it does not run on them.
        """
        with plain_execution():
            return self._drift(forward) if self._quantity == "drift" else self._cost(forward)

    def _drift(self, forward: Forward) -> Measured:
        difference = scale = 0.0
        batches_in_all = self._count()
        for number, batch in enumerate(self._batches()):
            expected = self._kept
            if expected is None:
                expected = self._outputs(self._whole, batch, number)
                self._kept = expected if batches_in_all == 1 else None
            found = self._outputs(forward, batch, number)
            for left, right in pairs(expected, found):
                if isinstance(left, Tensor) and left.is_floating_point():
                    wide = left.double()
                    difference += float((right.double() - wide).square().sum())
                    scale += float(wide.square().sum())
        value = math.sqrt(difference / scale) if scale > 0 else math.sqrt(difference)
        return Measured(drift=_finite(value))

    def _cost(self, forward: Forward) -> Measured:
        meter = Meter(self._objective, self._device)
        for number, batch in enumerate(self._batches()):
            if batch.targets is None and self._objective.needs_targets:
                raise ValueError("loss and metrics need a split with targets")
            meter.add(self._outputs(forward, batch, number), batch)
        found = meter.result()
        return Measured(loss=_finite(found.loss), accuracy=found.top1, metric=_finite(found.value))

    def _count(self) -> int:
        if not isinstance(self._data, Split):
            return 1
        return len(bounds(self._data.samples, self._size, merge_last=False))

    def _batches(self) -> Iterator[Batch]:
        if not isinstance(self._data, Split):
            yield Batch(inputs=tuple(self._data), targets=None, size=samples_in(self._data))
            return
        yield from batches(self._data, self._size, device=self._device, merge_last=False)

    def _outputs(self, forward: Forward, batch: Batch, number: int) -> Any:
        inputs = at_batch_size(batch.inputs, self._fixed) if self._fixed else batch.inputs
        with torch.random.fork_rng():
            # What a model draws at random is the same for the whole and the pruned one.
            torch.manual_seed(number)
            outputs = forward(inputs)
        if not self._fixed:
            return outputs
        return map_tensors(outputs, lambda value: self._own(value, batch.size))

    def _own(self, value: Tensor, size: int) -> Tensor:
        return value[:size] if value.dim() and value.shape[0] == self._fixed else value

    def _fitting(self, wanted: int, example_batch: int) -> int:
        """The wanted batch size, or the example's where the model takes no other."""
        if wanted == example_batch or not isinstance(self._data, Split):
            return wanted
        first = next(iter(batches(self._data, wanted, device=self._device, merge_last=False)))
        with torch.no_grad(), plain_execution():
            try:
                self._whole(first.inputs)
            except (InputsDoNotFit, ModelRaised):
                # Traced with its batch size baked in; measuring tells if that was not the cause.
                return example_batch
        return wanted


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
