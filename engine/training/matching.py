"""The features of a student beside those of its teacher, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.calling import describe
from engine.errors import TrainingRuleUnmet
from engine.features.matching import Matched
from engine.training.feature_losses import FEATURE_LOSSES

Shown = Mapping[str, Tensor | None]


class FeatureJudge:
    """Sums up the feature losses of an epoch.

    Args:
        matched: what is compared.
        field: path of the training run in the recipe, for errors.
        device: of the batches.
    """

    def __init__(self, matched: Sequence[Matched], *, field: str, device: str) -> None:
        self._matched = list(matched)
        self._field = field
        self._kept = [
            {dim: indices.to(device) for dim, indices in one.kept.items()} for one in matched
        ]
        self._sums = torch.zeros(len(self._matched), dtype=torch.float64, device=device)
        self._samples = 0

    def loss(self, student: Shown, teacher: Shown) -> Tensor:
        """The weighted sum of the losses of one batch, [].

        Args:
            student: features by key (see `shown_by`), with gradients.
            teacher: the same of the upload.

        Raises:
            TrainingRuleUnmet: one was not computed on this batch, or their shapes do not agree.
        """
        losses = []
        samples = 0
        for number, (one, kept) in enumerate(zip(self._matched, self._kept, strict=True)):
            own, given = student.get(str(number)), teacher.get(str(number))
            if own is None or given is None:
                raise self._refused(
                    f"`{one.path}` was not computed on a batch of the "
                    f"{'trained model' if own is None else 'upload'}: it lies behind control flow"
                )
            for dim, indices in kept.items():
                given = given.index_select(dim, indices)
            self._require_like(one, own, given)
            losses.append(FEATURE_LOSSES[one.loss](own, given, one.channels))
            samples = own.shape[0]
        stacked = torch.stack([loss.double() for loss in losses])
        self._sums += stacked.detach() * samples
        self._samples += samples
        return sum(
            (one.weight * loss for one, loss in zip(self._matched, losses, strict=True)),
            start=torch.zeros((), device=stacked.device),
        )

    def memory(self) -> dict[str, object]:
        """What a judge that goes on in its place must be told."""
        return {"sums": self._sums.clone(), "samples": self._samples}

    def recall(self, memory: Mapping[str, object]) -> None:
        """Go on from there."""
        sums, samples = memory["sums"], memory["samples"]
        if not isinstance(sums, Tensor) or not isinstance(samples, int):
            raise TypeError("not the memory of a feature judge")
        self._sums.copy_(sums)
        self._samples = samples

    def averages(self) -> dict[str, float]:
        """Mean over samples by name of the metric: of each module, and all with their weights."""
        means = (self._sums / self._samples).tolist()
        total = sum(one.weight * mean for one, mean in zip(self._matched, means, strict=True))
        each = {
            f"train/features/{one.loss}/{one.path}": mean
            for one, mean in zip(self._matched, means, strict=True)
        }
        return {"train/features": total, **each}

    def _require_like(self, one: Matched, student: Tensor, teacher: Tensor) -> None:
        shapes = [list(student.shape), list(teacher.shape)]
        if one.loss == "attention":
            for shape in shapes:
                del shape[one.channels]
        if shapes[0] != shapes[1]:
            raise self._refused(
                f"`{one.path}` gives {describe([student])} in training, and {describe([teacher])} "
                "in the upload over the channels that are left"
            )

    def _refused(self, title: str) -> TrainingRuleUnmet:
        return TrainingRuleUnmet(
            title,
            hint="name another module in `features`",
            where=f"{self._field}.distillation.features",
        )
