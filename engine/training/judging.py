"""What a batch costs the student, by targets, by a teacher or by both, and averages of an epoch.

Sums are kept on the device, so that no step waits for a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from secateur.recipe import Distillation
from torch import Tensor

from engine.data.batches import Batch
from engine.objective.metrics import Tally
from engine.structure import map_tensors
from engine.training.distillation import Teacher, agreeing, positions, taught_loss
from engine.training.matching import FeatureJudge, Shown
from engine.training.run import TrainingRun


class EpochJudge:
    """The loss of every batch of one epoch.

    An epoch has a judge of its own, so a teacher that writes to its buffers begins each epoch as
    it was uploaded. What a judge has summed up and such a teacher has written are its memory: an
    epoch that is resumed in its midst reports what an undisturbed one does.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._options = run.options
        self._objective = run.objective.trained_by(run.options)
        self._teacher = teacher_of(run)
        self._cache = run.cache
        self._loss = torch.zeros((), dtype=torch.float64, device=run.device)
        self._soft = torch.zeros((), dtype=torch.float64, device=run.device)
        self._agreed = torch.zeros((), dtype=torch.int64, device=run.device)
        self._terms: int | Tensor = 0
        self._compared = 0
        # What an uploaded module says costs as much as it likes; it is asked of splits alone.
        self._metrics = [
            one
            for one in self._objective.metrics
            if one.name != "module" and (one is self._objective.decides or one.name == "accuracy")
        ]
        self._tallies: dict[str, Tally] = {
            one.name: one.begin(run.device) for one in self._metrics if one.begin is not None
        }
        self._labelled = False
        self._features = (
            FeatureJudge(run.features, field=run.field, device=run.device) if run.features else None
        )

    def loss(self, output: Any, batch: Batch, features: Shown | None = None) -> Tensor:
        """What is minimised, a mean over terms; counted in the averages.

        Args:
            output: of the student, with gradients.
            batch: it is of.
            features: of the student, by number, where the run compares any.

        Raises:
            TrainingRuleUnmet: the teacher gives another kind of output than the student, or a
                feature of it is not like the student's.
            OutputNotFound: the output lacks the tensor that the objective names.
        """
        labelled = batch.targets is not None or not self._objective.needs_targets
        if not labelled and self._options.needs_targets:
            raise ValueError("training by targets needs a split with targets")
        terms: int | Tensor | None = None
        loss = by_targets = None
        if labelled:
            by_targets, terms = self._by_targets(output, batch)
            loss = by_targets
        if self._teacher is not None:
            scores = self._objective.scores(output)
            loss = self._taught(self._teacher, scores, batch, by_targets)
            if self._features is not None:
                loss = loss + self._features.loss(features or {}, self._teacher.features())
            if terms is None or batch.labelled is not None:
                terms = positions(scores, self._objective)
        if loss is None or terms is None:
            raise ValueError("training needs targets or a teacher")
        self._loss += loss.detach() * terms
        self._terms = self._terms + terms
        return loss

    def memory(self) -> dict[str, Any]:
        """What a judge that goes on in its place must be told, in tensors of its own."""
        return {
            "loss": self._loss.clone(),
            "soft": self._soft.clone(),
            "agreed": self._agreed.clone(),
            "terms": map_tensors(self._terms, Tensor.clone),
            "compared": self._compared,
            "labelled": self._labelled,
            "features": {} if self._features is None else self._features.memory(),
            "metrics": {name: tally.memory() for name, tally in self._tallies.items()},
            "teacher": {} if self._teacher is None else self._teacher.memory(),
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from there; the memory stays as it is."""
        self._loss.copy_(memory["loss"])
        self._soft.copy_(memory["soft"])
        self._agreed.copy_(memory["agreed"])
        self._terms = map_tensors(memory["terms"], lambda terms: terms.to(self._loss.device))
        self._compared, self._labelled = memory["compared"], memory["labelled"]
        for name, tally in self._tallies.items():
            tally.recall(memory["metrics"][name])
        if self._features is not None:
            self._features.recall(memory["features"])
        if self._teacher is not None:
            self._teacher.recall(memory["teacher"])

    def _taught(
        self, teacher: Teacher, scores: Tensor, batch: Batch, by_targets: Tensor | None
    ) -> Tensor:
        """The loss of the teacher, and of the targets where they have a share."""
        distillation = self._options.distillation or Distillation()
        alpha = distillation.alpha
        taught = (
            teacher.scores(batch.inputs, scores)
            if self._cache is None or batch.rows is None
            else teacher.fitting(self._cache.scores(batch.rows, str(scores.device)), scores)
        )
        soft = taught_loss(scores, taught, distillation, self._objective)
        compared = positions(scores, self._objective)
        self._soft += soft.detach() * compared
        self._compared += compared
        if self._objective.scores_classes:
            self._agreed += agreeing(scores.detach(), taught)
        if by_targets is None:
            # A batch without labels among others with some: the teacher has its share there too.
            return soft if not self._options.needs_targets else alpha * soft
        # Without a share it is left out of the sum: the targets' loss then keeps its bits.
        return by_targets if alpha == 0 else (1 - alpha) * by_targets + alpha * soft

    def _by_targets(self, output: Any, batch: Batch) -> tuple[Tensor | None, int | Tensor]:
        """The loss towards the targets, where it has a share, and how many terms it has."""
        objective = self._objective
        output, batch = _with_targets(output, batch)
        if not batch.size:
            return None, 0
        pair = objective.pair(output, batch)
        self._labelled = True
        for metric in self._metrics:
            if metric.name in self._tallies:
                own = metric.reader == objective.loss.reader
                shown = pair if own else metric.reader.read(output, batch)
                self._tallies[metric.name].add(shown.detached())
        if not self._options.needs_targets:
            return None, pair.terms
        return objective.loss.mean(pair), pair.terms

    @property
    def total(self) -> float:
        """The sum of the losses; not finite where one was not. Waits for the device."""
        return float(self._loss)

    def averages(self) -> dict[str, float]:
        """By name; metrics such as `train/accuracy` where there are targets to be held against."""
        found = {"train/loss": self.total / max(int(self._terms), 1)}
        if self._labelled:
            for name, tally in self._tallies.items():
                found[f"train/{name}"] = tally.value()
        if self._teacher is not None:
            found["train/distillation"] = float(self._soft) / self._compared
            if self._objective.scores_classes:
                found["train/agreement"] = int(self._agreed) / self._compared
        if self._features is not None:
            found |= self._features.averages()
        return found


def _with_targets(output: Any, batch: Batch) -> tuple[Any, Batch]:
    """The samples of a batch that have targets, and what the student gives for them."""
    if batch.labelled is None:
        return output, batch
    rows = batch.labelled.nonzero().flatten()

    def own(tensor: Tensor) -> Tensor:
        carries = tensor.dim() and tensor.shape[0] == batch.size
        return tensor.index_select(0, rows.to(tensor.device)) if carries else tensor

    inputs = tuple(map_tensors(value, own) for value in batch.inputs)
    part = Batch(inputs, map_tensors(batch.targets, own), len(rows))
    return map_tensors(output, own), part


def teacher_of(run: TrainingRun) -> Teacher | None:
    """The teacher of a run, in the state it was uploaded in."""
    if run.options.distillation is None:
        return None
    if run.teacher is None:
        raise ValueError("distillation needs a teacher")
    return Teacher(
        run.teacher,
        run.objective.trained_by(run.options),
        kind=run.options.distillation.kind,
        field=run.field,
        features=run.features,
    )
