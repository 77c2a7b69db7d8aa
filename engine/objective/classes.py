"""Cross-entropy over classes, of samples or of every position of a dense prediction.

Scores z of K classes give probabilities p_k = exp(z_k) / sum_j exp(z_j). With label smoothing e
(Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7) the
loss of a position with class y is

    L = -(1 - e) log p_y - (e / K) sum_k log p_k

and the loss of a batch its mean over positions. Positions whose target is `ignore_index` have no
term: they are left out of the sum and of the number it is divided by. A batch without any term has
loss 0 and gradient 0, where the mean over nothing would be NaN.

`segmentation` is the same loss over [samples, classes, height, width] (Long, Shelhamer & Darrell
2015, "Fully Convolutional Networks for Semantic Segmentation").

Labels drawn from p: y ~ p, for each position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.calling import describe
from engine.data.batches import Batch
from engine.errors import DatasetInvalid
from engine.objective.loss import Loss
from engine.objective.reading import Pair, Reader, dtype_name, is_integer, row_of

_NO_TORCH_INDEX = -100
"""What torch ignores unless told otherwise; no class has it."""


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    total: bool = False,
    ignore_index: int | None = None,
) -> Tensor:
    """Mean (or total) over all targets that count; logits [samples, classes, ...] in any float
    type, targets int64 [samples, ...]."""
    ignored = _NO_TORCH_INDEX if ignore_index is None else ignore_index
    # Half types lose the small differences that the logarithm is about.
    loss = functional.cross_entropy(
        logits.float(),
        targets,
        label_smoothing=label_smoothing,
        reduction="sum" if total or ignore_index is not None else "mean",
        ignore_index=ignored,
    )
    if total or ignore_index is None:
        return loss
    return loss / (targets != ignored).sum().clamp(min=1)


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """How many targets have the highest score, as a tensor on the device."""
    return (logits.argmax(dim=1) == targets).sum()


@dataclass(frozen=True)
class ClassReader(Reader):
    """Scores [samples, classes, ...] and class indices [samples, ...].

    Attributes:
        ignore_index: target that does not count, or None.
        dense: whether every sample must have positions.
    """

    ignore_index: int | None = None
    dense: bool = False

    @property
    def scores_classes(self) -> bool:
        """Always."""
        return True

    def read(self, output: Any, batch: Batch) -> Pair:
        """Scores as the model gives them, targets as int64."""
        return self.pair(self.scores(output), self.one_target(batch.targets), batch.size)

    def pair(self, scores: Tensor, targets: Tensor, samples: int) -> Pair:
        """The same of tensors in the family's form."""
        targets = targets.to(torch.int64)
        counted = None if self.ignore_index is None else targets != self.ignore_index
        return Pair(scores, targets, samples, counted)

    def check_scores(self, scores: Tensor, name: str) -> None:
        """A score for each class, in a float type."""
        least = 3 if self.dense else 2
        form = "[samples, classes, height, width]" if self.dense else "[samples, classes, ...]"
        if scores.dim() < least or not scores.is_floating_point():
            loss = "segmentation" if self.dense else "cross-entropy"
            raise DatasetInvalid(
                f"the model returns {describe([scores])}; {loss} takes shape {form} in a float "
                "type",
                hint="use a model whose output holds one score per class, or choose its tensor "
                "with `objective.output`",
                where=name,
            )

    def check_targets(self, scores: Tensor, batch: Batch, name: str, first_row: int) -> None:
        """An integer below the number of classes for each position."""
        check_classes(
            scores,
            self.one_target(batch.targets),
            name,
            ignore_index=self.ignore_index,
            first_row=first_row,
        )

    def classes_in(self, scores: Tensor, batch: Batch) -> Tensor | None:
        """Without those that are ignored."""
        targets = self.one_target(batch.targets).to(torch.int64).flatten()
        if self.ignore_index is not None:
            targets = targets[targets != self.ignore_index]
        return torch.bincount(targets, minlength=scores.shape[1])


def check_classes(
    logits: Tensor,
    targets: Tensor,
    name: str,
    *,
    ignore_index: int | None = None,
    first_row: int = 0,
) -> None:
    """Hold class indices against logits of shape [samples, classes, ...].

    Raises:
        DatasetInvalid: the dtype is no integer, the shape is another, or a class is out of range.
    """
    if not is_integer(targets):
        raise DatasetInvalid(
            f"`{name}` has dtype {dtype_name(targets)}; cross-entropy takes class indices",
            hint="store the index of the class as int64, not one-hot rows or scores; for several "
            "labels at once or for regression choose another `objective.loss`",
            where=name,
        )
    if logits.dim() < 2:
        raise DatasetInvalid(
            f"the model returns shape {list(logits.shape)}; cross-entropy takes "
            "[samples, classes, ...]",
            hint="use a model whose output holds one score per class",
            where=name,
        )
    if targets.shape[1:] != logits.shape[2:]:
        raise DatasetInvalid(
            f"`{name}` holds {describe([targets])}, which does not fit the model's output "
            f"{describe([logits])}",
            hint=f"one class index for each of {['samples', *logits.shape[2:]]}",
            where=name,
        )
    check_range(targets, logits.shape[1], name, ignore_index=ignore_index, first_row=first_row)


def check_range(
    targets: Tensor,
    classes: int,
    name: str,
    *,
    ignore_index: int | None,
    first_row: int,
    what: str = "class",
) -> None:
    """Refuse an index outside 0 .. classes - 1 that is not ignored; names its row."""
    wide = targets.to(torch.int64)
    wrong = (wide < 0) | (wide >= classes)
    if ignore_index is not None:
        wrong &= wide != ignore_index
    if bool(wrong.any()):
        plural = "classes" if what == "class" else f"{what}s"
        advice = (
            ""
            if ignore_index is not None
            else f"; `objective.ignore_index: {int(wide[wrong][0])}` leaves such targets out"
        )
        raise DatasetInvalid(
            f"`{name}` holds {what} {int(wide[wrong][0])}; the model has {plural} 0 to "
            f"{classes - 1}",
            hint=f"row {row_of(wrong, first_row)} is the first; number the {plural} from 0 and use "
            f"the model that was trained on them{advice}",
            where=name,
        )


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy, under the name it has in the recipe.

    Attributes:
        reader: of classes, or of tokens.
        label_smoothing: e, of the mean alone.
        called: `cross_entropy`, `segmentation` or `next_token`.
    """

    reader: ClassReader
    label_smoothing: float = 0.0
    called: str = "cross_entropy"

    @property
    def name(self) -> str:
        """In the recipe."""
        return self.called

    def mean(self, pair: Pair) -> Tensor:
        """Over the positions that count."""
        return cross_entropy(
            pair.scores,
            pair.targets,
            label_smoothing=self.label_smoothing,
            ignore_index=self.reader.ignore_index,
        )

    def total(self, pair: Pair) -> Tensor:
        """Over the positions that count, without smoothing."""
        return cross_entropy(
            pair.scores, pair.targets, total=True, ignore_index=self.reader.ignore_index
        )

    def drawn(self, scores: Tensor, source: torch.Generator) -> Tensor:
        """A class for each position, by its probability."""
        likely = scores.detach().double().softmax(dim=1).movedim(1, -1).cpu()
        chosen = torch.multinomial(likely.reshape(-1, likely.shape[-1]), 1, generator=source)
        return chosen.reshape(likely.shape[:-1]).to(scores.device)
