"""Binary cross-entropy of logits: any number of labels at once, each true or false.

With s(z) = 1 / (1 + exp(-z)) the loss of a logit z with label y in [0, 1] is

    L = -y log s(z) - (1 - y) log(1 - s(z)) = max(z, 0) - z y + log(1 + exp(-|z|))

the last form of which neither overflows nor takes the logarithm of zero. The loss of a batch is the
mean over all its elements. A label strictly between 0 and 1 is a probability (Bishop 2006, "Pattern
Recognition and Machine Learning", section 4.3.2).

Labels drawn from the logits: y ~ Bernoulli(s(z)), for each element.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.data.batches import Batch
from engine.errors import DatasetInvalid
from engine.objective.loss import Loss
from engine.objective.reading import Pair, dtype_name, row_of
from engine.objective.values import ValueReader


@dataclass(frozen=True)
class LabelReader(ValueReader):
    """Logits and labels of one shape; labels are floats in [0, 1], or booleans."""

    def check_targets(self, scores: Tensor, batch: Batch, name: str, first_row: int) -> None:
        """Floats in [0, 1], or booleans, of the logits' shape."""
        targets = self.one_target(batch.targets)
        if not (targets.is_floating_point() or targets.dtype == torch.bool):
            raise DatasetInvalid(
                f"`{name}` has dtype {dtype_name(targets)}; binary cross-entropy takes a label in "
                "[0, 1] for each logit",
                hint="store 0.0 and 1.0 as float32; for one class index of each sample use "
                "`objective.loss: cross_entropy`",
                where=name,
            )
        self.check_shape(scores, targets, name)
        if targets.dtype == torch.bool:
            return
        wrong = ~((targets >= 0) & (targets <= 1))
        if bool(wrong.any()):
            raise DatasetInvalid(
                f"`{name}` holds {float(targets[wrong][0]):g} in row {row_of(wrong, first_row)}; "
                "labels of binary cross-entropy lie in [0, 1]",
                hint="store 1 where a label applies and 0 where it does not",
                where=name,
            )


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Mean over all elements."""

    reader: LabelReader

    @property
    def name(self) -> str:
        """In the recipe."""
        return "bce_with_logits"

    def mean(self, pair: Pair) -> Tensor:
        """Over the elements."""
        return functional.binary_cross_entropy_with_logits(pair.scores, pair.targets)

    def total(self, pair: Pair) -> Tensor:
        """Over the elements."""
        return functional.binary_cross_entropy_with_logits(
            pair.scores, pair.targets, reduction="sum"
        )

    def drawn(self, scores: Tensor, source: torch.Generator) -> Tensor:
        """Each label, by its probability."""
        likely = scores.detach().double().sigmoid().cpu()
        return torch.bernoulli(likely, generator=source).to(scores)
