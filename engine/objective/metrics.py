r"""Metrics that are counted batch by batch, on the device, in constant memory.

Each is a function of sums over all terms of a split, so no order or size of batches changes it but
in the rounding of floats; counts are integers and exact.

.. math::
    \text{accuracy} &= \frac{1}{N} \sum_n [\arg\max_k z_{nk} = y_n] &
    \text{top5} &= \frac{1}{N} \sum_n [y_n \text{ among the 5 highest } z_{nk}] \\
    \text{binary accuracy} &= \frac{1}{N} \sum_n [(z_n > 0) = (y_n > 1/2)] &
    \text{mse} &= \frac{1}{N} \sum_n (z_n - y_n)^2, \quad \text{rmse} = \sqrt{\text{mse}} \\
    \text{mae} &= \frac{1}{N} \sum_n |z_n - y_n| &
    \text{perplexity} &= \exp \Big( \frac{1}{N} \sum_n -\log p(y_n) \Big)

over the N positions (or elements) that count. A logit above 0 is a probability above 1/2.

Mean intersection over union (Everingham et al. 2010, "The Pascal Visual Object Classes (VOC)
Challenge", section 4.4): with the confusion matrix C, :math:`C_{kj}` the positions of class k that
are taken for j, over all samples together,

.. math:: \text{IoU}_k = \frac{C_{kk}}{\sum_j C_{kj} + \sum_j C_{jk} - C_{kk}}

averaged over the classes that occur in targets or predictions. Its diagonal and its two margins
are all that is kept of C.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from secateur.recipe_objective import METRICS
from torch import Tensor

from engine.objective.reading import Pair, Reader
from engine.structure import map_tensors


class Tally(ABC):
    """Sums of one metric over the batches it was shown."""

    device = "cpu"

    @abstractmethod
    def add(self, pair: Pair) -> None:
        """Take in a batch; nothing waits for the device."""

    @abstractmethod
    def value(self) -> float:
        """Over all of them; NaN where nothing counted."""

    def memory(self) -> dict[str, Any]:
        """The sums, in tensors of their own."""
        return {
            name: map_tensors(value, Tensor.clone)
            for name, value in vars(self).items()
            if isinstance(value, int | Tensor) and not isinstance(value, bool)
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from such sums, which stay as they are."""
        for name, value in memory.items():
            held = value.to(self.device, copy=True) if isinstance(value, Tensor) else value
            setattr(self, name, held)


class Share(Tally):
    """A share of the terms.

    Attributes:
        right, total: counts; plain numbers once asked for.
    """

    def __init__(self, hits: Callable[[Pair], Tensor], device: str) -> None:
        """Args: hits: boolean, of the targets' shape."""
        self._hits = hits
        self.device = device
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._total: int | Tensor = 0

    def add(self, pair: Pair) -> None:
        """Count."""
        hits = self._hits(pair)
        self._right += (hits if pair.counted is None else hits & pair.counted).sum()
        self._total = self._total + pair.terms

    @property
    def right(self) -> int:
        """Terms that are right."""
        return int(self._right)

    @property
    def total(self) -> int:
        """Terms."""
        return int(self._total)

    def value(self) -> float:
        """The share."""
        return self.right / self.total if self.total else math.nan


class MeanError(Tally):
    """A mean over elements of some distance, in float64."""

    def __init__(self, distance: Callable[[Tensor], Tensor], device: str, *, root: bool) -> None:
        self._distance = distance
        self.device = device
        self._sum = torch.zeros((), dtype=torch.float64, device=device)
        self._total = 0
        self._root = root

    def add(self, pair: Pair) -> None:
        """Add the distances."""
        self._sum += self._distance(pair.scores.double() - pair.targets.double()).sum()
        self._total += pair.targets.numel()

    def value(self) -> float:
        """Their mean, or its root."""
        if not self._total:
            return math.nan
        mean = float(self._sum) / self._total
        return math.sqrt(mean) if self._root else mean


class Overlap(Tally):
    """Mean intersection over union of classes."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._common = self._predicted = self._given = torch.zeros(
            0, dtype=torch.int64, device=device
        )

    def add(self, pair: Pair) -> None:
        """Count for every class what is predicted, what is right and what is both."""
        classes = pair.scores.shape[1]
        if not self._common.numel():
            self._common, self._predicted, self._given = torch.zeros(
                3, classes, dtype=torch.int64, device=self.device
            )
        found = pair.scores.argmax(dim=1).flatten()
        given = pair.targets.flatten()
        counts = (
            torch.ones_like(given) if pair.counted is None else pair.counted.flatten().to(given)
        )
        # An ignored target is no class; it adds nothing to class 0.
        given = given if pair.counted is None else given.masked_fill(counts == 0, 0)
        self._predicted.scatter_add_(0, found, counts)
        self._given.scatter_add_(0, given, counts)
        self._common.scatter_add_(0, given, counts * (found == given))

    def value(self) -> float:
        """Over the classes that occur."""
        union = self._predicted + self._given - self._common
        occurs = union > 0
        if not bool(occurs.any()):
            return math.nan
        return float((self._common[occurs].double() / union[occurs].double()).mean())


@dataclass(frozen=True)
class Metric:
    """A metric of a job.

    Attributes:
        name: in the recipe.
        higher_is_better: its direction.
        reader: how it reads outputs and targets.
        begin: makes its sums on a device; None where `of_loss` makes it from the mean loss.
        of_loss: see there.
    """

    name: str
    higher_is_better: bool
    reader: Reader
    begin: Callable[[str], Tally] | None = None
    of_loss: Callable[[float], float] | None = None

    def better(self, one: float, other: float) -> bool:
        """Whether one value is better than another."""
        return one > other if self.higher_is_better else one < other


def metric(name: str, reader: Reader) -> Metric:
    """A built-in metric by its name in the recipe."""
    begin, of_loss = _BUILT_IN[name]
    return Metric(name, METRICS[name].higher_is_better, reader, begin, of_loss)


def highest(pair: Pair) -> Tensor:
    """Whether a target's class has the highest score."""
    return pair.scores.argmax(dim=1) == pair.targets  # type: ignore[no-any-return]


def among_five(pair: Pair) -> Tensor:
    """Whether it is among the five highest."""
    best = pair.scores.topk(min(5, pair.scores.shape[1]), dim=1).indices
    return (best == pair.targets.unsqueeze(1)).any(dim=1)  # type: ignore[no-any-return]


def right_side(pair: Pair) -> Tensor:
    """Whether a logit lies on its label's side."""
    return (pair.scores > 0) == (pair.targets > 0.5)  # type: ignore[no-any-return]


def exp(loss: float) -> float:
    """e to the loss; infinite where that is beyond float64."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def _share(hits: Callable[[Pair], Tensor]) -> Callable[[str], Tally]:
    return lambda device: Share(hits, device)


def _error(distance: Callable[[Tensor], Tensor], *, root: bool = False) -> Callable[[str], Tally]:
    return lambda device: MeanError(distance, device, root=root)


_Made = tuple[Callable[[str], Tally] | None, Callable[[float], float] | None]
_BUILT_IN: dict[str, _Made] = {
    "accuracy": (_share(highest), None),
    "top5": (_share(among_five), None),
    "binary_accuracy": (_share(right_side), None),
    "miou": (Overlap, None),
    "mse": (_error(torch.square), None),
    "rmse": (_error(torch.square, root=True), None),
    "mae": (_error(torch.abs), None),
    "perplexity": (None, exp),
    "loss": (None, float),
}
"""By name: what makes the sums, or what makes the value of the mean loss."""
