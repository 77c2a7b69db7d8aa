"""How the output of a model and the targets of a batch become what a loss compares.

A reader belongs to a family of losses. It picks the output's tensor and the target, brings both
into the family's form, and knows which targets fit: what `engine.data.fit` asks before any work
is spent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from engine.data.batches import Batch
from engine.objective.outputs import picked
from engine.structure import map_tensors


@dataclass(frozen=True)
class Pair:
    """What a loss and a metric compare.

    Attributes:
        scores: in the family's form; for an uploaded module the output it is given.
        targets: in the family's form; None where the family needs none.
        samples: of the batch.
        counted: boolean, of the targets' shape: those that count; None where all do.
        whole: whether a term is a sample, whatever its targets are.
    """

    scores: Any
    targets: Any
    samples: int
    counted: Tensor | None = None
    whole: bool = False

    @property
    def terms(self) -> int | Tensor:
        """How many terms a mean over it has; a tensor on the device where some do not count."""
        if self.whole:
            return self.samples
        return self.targets.numel() if self.counted is None else self.counted.sum()

    def detached(self) -> Pair:
        """The same without gradients."""
        return replace(self, scores=map_tensors(self.scores, Tensor.detach))


@dataclass(frozen=True)
class Reader(ABC):
    """A family's way to read outputs and targets.

    Attributes:
        output: path of the tensor in the model's output, see `engine.objective.outputs`.
        target: index of the target tensor, or None for the only one.
    """

    output: str | None = None
    target: int | None = None

    @property
    def needs_targets(self) -> bool:
        """Whether it needs target tensors."""
        return True

    @property
    def scores_classes(self) -> bool:
        """Whether scores are [positions, classes, ...] of which one is right."""
        return False

    def raw(self, output: Any) -> Tensor | None:
        """The tensor of the output that is read, as the model gives it; None where all of it is."""
        return picked(output, self.output)

    def scores(self, output: Any) -> Tensor:
        """The scores of a whole output, in the family's form."""
        return picked(output, self.output)

    def wide(self, scores: Tensor) -> Tensor:
        """The scores in the type that the family's loss is worked out in."""
        return scores

    @abstractmethod
    def read(self, output: Any, batch: Batch) -> Pair:
        """What is compared for a batch.

        Args:
            output: of the model, for all samples of the batch.
            batch: with targets where the family needs them.
        """

    @abstractmethod
    def check_scores(self, scores: Tensor, name: str) -> None:
        """Hold what the model gives against the family's form.

        Args:
            scores: the tensor the model gives, as it gives it.
            name: of the target tensor, for errors.

        Raises:
            DatasetInvalid: they do not fit.
        """

    @abstractmethod
    def check_targets(self, scores: Tensor, batch: Batch, name: str, first_row: int) -> None:
        """Hold the targets of some rows against the scores' shape; all on one device.

        Args:
            scores: of other samples, as the model gives them.
            batch: some rows of the split.
            name: of the target tensor, for errors.
            first_row: number of the first of them in the split.

        Raises:
            DatasetInvalid: dtype, shape or values do not fit.
        """

    def classes_in(self, scores: Tensor, batch: Batch) -> Tensor | None:
        """How many targets of each class some rows have; None where there are no classes, or too
        many for one to be missed."""
        del scores, batch
        return None

    def one_target(self, targets: Any) -> Tensor:
        """The target tensor of several."""
        if isinstance(targets, tuple):
            return targets[self.target or 0]  # type: ignore[no-any-return]
        if not isinstance(targets, Tensor):
            raise TypeError("a loss by targets needs a split with targets")
        return targets


def row_of(wrong: Tensor, first_row: int) -> int:
    """The number of the first row that has a True anywhere; wrong [rows, ...]."""
    return first_row + int(wrong.reshape(wrong.shape[0], -1).any(dim=1).nonzero()[0])


def dtype_name(tensor: Tensor) -> str:
    """`int64`."""
    return str(tensor.dtype).removeprefix("torch.")


def is_integer(tensor: Tensor) -> bool:
    """Whether it can hold class indices."""
    return not (
        tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool
    )
