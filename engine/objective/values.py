"""Losses of regression: output and target are numbers of one shape.

With the error d = z - y of an element, the loss is the mean over all elements of

    mse:        d^2
    l1:         |d|
    smooth_l1:  d^2 / (2 b)  where |d| < b,  |d| - b / 2  elsewhere

`smooth_l1` is continuous with its first derivative at |d| = b (Girshick 2015, "Fast R-CNN",
equation 3, for b = 1; b times it is the loss of Huber 1964).

The square is, up to a constant, the negative log-likelihood of a normal distribution of variance
1/2 around the output: targets drawn from an output are y ~ N(z, 1/2), for each element.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from engine.calling import describe
from engine.data.batches import Batch
from engine.errors import DatasetInvalid
from engine.objective.loss import Loss
from engine.objective.reading import Pair, Reader, dtype_name


@dataclass(frozen=True)
class ValueReader(Reader):
    """Output and target of one shape, both in float32 or wider."""

    def read(self, output: Any, batch: Batch) -> Pair:
        """The target takes the output's type; half types become float32."""
        return self.pair(self.scores(output), self.one_target(batch.targets), batch.size)

    def pair(self, scores: Tensor, targets: Tensor, samples: int) -> Pair:
        """The same of tensors."""
        wide = self.wide(scores)
        return Pair(wide, targets.to(wide.dtype), samples)

    def wide(self, scores: Tensor) -> Tensor:
        """float32, or float64 where the model computes in it."""
        return scores if scores.dtype == torch.float64 else scores.float()

    def check_scores(self, scores: Tensor, name: str) -> None:
        """Numbers in a float type."""
        if not scores.is_floating_point():
            raise DatasetInvalid(
                f"the model returns {describe([scores])}; the loss takes a float type",
                hint="choose another tensor of the output with `objective.output`",
                where=name,
            )

    def check_targets(self, scores: Tensor, batch: Batch, name: str, first_row: int) -> None:
        """Numbers of the output's shape."""
        del first_row
        targets = self.one_target(batch.targets)
        if targets.dtype.is_complex or targets.dtype == torch.bool:
            raise DatasetInvalid(
                f"`{name}` has dtype {dtype_name(targets)}; regression takes numbers",
                hint="store them as float32",
                where=name,
            )
        self.check_shape(scores, targets, name)

    def check_shape(self, scores: Tensor, targets: Tensor, name: str) -> None:
        """Every sample has a target for each element of its output; nothing is broadcast."""
        if targets.shape[1:] != scores.shape[1:]:
            raise DatasetInvalid(
                f"`{name}` holds {describe([targets])}, which does not fit the model's output "
                f"{describe([scores])}",
                hint=f"a number for each of {['samples', *scores.shape[1:]]}; shapes must be "
                "equal, nothing is repeated to make them so",
                where=name,
            )


@dataclass(frozen=True)
class ElementLoss(Loss):
    """Mean over all elements.

    Attributes:
        kind: which.
        beta: b, of `smooth_l1`.
    """

    reader: ValueReader
    kind: Literal["mse", "l1", "smooth_l1"] = "mse"
    beta: float = 1.0

    @property
    def name(self) -> str:
        """In the recipe."""
        return self.kind

    def mean(self, pair: Pair) -> Tensor:
        """Over the elements."""
        return self._loss(pair, "mean")

    def total(self, pair: Pair) -> Tensor:
        """Over the elements."""
        return self._loss(pair, "sum")

    def drawn(self, scores: Tensor, source: torch.Generator) -> Tensor | None:
        """Around the output, for the square; the others are no likelihood anyone draws from."""
        if self.kind != "mse":
            return None
        noise = torch.randn(scores.shape, generator=source, dtype=torch.float64)
        spread: Tensor = (noise * 0.5**0.5).to(scores)
        return scores.detach() + spread

    def _loss(self, pair: Pair, reduction: str) -> Tensor:
        if self.kind == "mse":
            return functional.mse_loss(pair.scores, pair.targets, reduction=reduction)
        if self.kind == "l1":
            return functional.l1_loss(pair.scores, pair.targets, reduction=reduction)
        return functional.smooth_l1_loss(
            pair.scores, pair.targets, reduction=reduction, beta=self.beta
        )
