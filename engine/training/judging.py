"""What a batch costs the student, by labels, by a teacher or by both, and averages of an epoch.

Sums are kept on the device, so that no step waits for a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from secateur.recipe import Distillation
from torch import Tensor

from engine.data.batches import Batch
from engine.training.distillation import Teacher, agreeing, soft_loss
from engine.training.matching import FeatureJudge, Shown
from engine.training.objective import class_indices, correct, cross_entropy
from engine.training.run import TrainingRun


class EpochJudge:
    """The loss of every batch of one epoch.

    An epoch has a judge of its own, so a teacher that writes to its buffers begins each epoch as
    it was uploaded. What a judge has summed up and such a teacher has written are its memory: an
    epoch that is resumed in its midst reports what an undisturbed one does.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._options = run.options
        self._teacher = _teacher_of(run)
        self._loss = torch.zeros((), dtype=torch.float64, device=run.device)
        self._soft = torch.zeros((), dtype=torch.float64, device=run.device)
        self._right = torch.zeros((), dtype=torch.int64, device=run.device)
        self._agreed = torch.zeros((), dtype=torch.int64, device=run.device)
        self._counted = 0
        self._labelled = 0
        self._features = (
            FeatureJudge(run.features, field=run.field, device=run.device) if run.features else None
        )

    def loss(self, logits: Tensor, batch: Batch, features: Shown | None = None) -> Tensor:
        """What is minimised, mean over positions; counted in the averages.

        Args:
            logits: the student's scores, [samples, classes, ...].
            batch: they are of.
            features: of the student, by number, where the run compares any.

        Raises:
            TrainingRuleUnmet: the teacher scores other classes than the student, or a feature of
                it is not like the student's.
        """
        if batch.targets is None and self._options.needs_targets:
            raise ValueError("training by labels needs a split with targets")
        loss = by_labels = self._by_labels(logits, batch)
        if self._teacher is not None:
            loss = self._taught(self._teacher, logits, batch, by_labels)
            if self._features is not None:
                loss = loss + self._features.loss(features or {}, self._teacher.features())
        if loss is None:
            raise ValueError("training needs labels or a teacher")
        positions = (
            _positions(logits) if batch.targets is None else class_indices(batch.targets).numel()
        )
        self._loss += loss.detach() * positions
        self._counted += positions
        return loss

    def memory(self) -> dict[str, Any]:
        """What a judge that goes on in its place must be told, in tensors of its own."""
        return {
            "loss": self._loss.clone(),
            "soft": self._soft.clone(),
            "right": self._right.clone(),
            "agreed": self._agreed.clone(),
            "counted": self._counted,
            "labelled": self._labelled,
            "features": {} if self._features is None else self._features.memory(),
            "teacher": {} if self._teacher is None else self._teacher.memory(),
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from there; the memory stays as it is."""
        self._loss.copy_(memory["loss"])
        self._soft.copy_(memory["soft"])
        self._right.copy_(memory["right"])
        self._agreed.copy_(memory["agreed"])
        self._counted, self._labelled = memory["counted"], memory["labelled"]
        if self._features is not None:
            self._features.recall(memory["features"])
        if self._teacher is not None:
            self._teacher.recall(memory["teacher"])

    def _taught(
        self, teacher: Teacher, logits: Tensor, batch: Batch, by_labels: Tensor | None
    ) -> Tensor:
        """The loss of the teacher, and of the labels where they have a share."""
        distillation = self._options.distillation or Distillation()
        alpha = distillation.alpha
        scores = teacher.scores(batch.inputs, logits)
        soft = soft_loss(logits, scores, temperature=distillation.temperature)
        self._soft += soft.detach() * _positions(logits)
        self._agreed += agreeing(logits.detach(), scores)
        if by_labels is None:
            return soft
        # Without a share it is left out of the sum: the labels' loss then keeps its bits.
        return by_labels if alpha == 0 else (1 - alpha) * by_labels + alpha * soft

    def _by_labels(self, logits: Tensor, batch: Batch) -> Tensor | None:
        """The labels' loss, where it has a share."""
        if batch.targets is None:
            return None
        targets = class_indices(batch.targets)
        self._right += correct(logits.detach(), targets)
        self._labelled += targets.numel()
        if not self._options.needs_targets:
            return None
        return cross_entropy(logits, targets, label_smoothing=self._options.label_smoothing)

    @property
    def total(self) -> float:
        """The sum of the losses; not finite where one was not. Waits for the device."""
        return float(self._loss)

    def averages(self) -> dict[str, float]:
        """By name of the metric; `train/accuracy` where there are labels to be right about."""
        found = {"train/loss": self.total / self._counted}
        if self._labelled:
            found["train/accuracy"] = int(self._right) / self._labelled
        if self._teacher is not None:
            found["train/distillation"] = float(self._soft) / self._counted
            found["train/agreement"] = int(self._agreed) / self._counted
        if self._features is not None:
            found |= self._features.averages()
        return found


def _teacher_of(run: TrainingRun) -> Teacher | None:
    if run.options.distillation is None:
        return None
    if run.teacher is None:
        raise ValueError("distillation needs a teacher")
    return Teacher(run.teacher, field=run.field, features=run.features)


def _positions(logits: Tensor) -> int:
    """How many predictions logits [samples, classes, ...] hold."""
    return logits.numel() // logits.shape[1]
