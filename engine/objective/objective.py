"""The objective of a job: its loss and its metrics, resolved once and used everywhere.

Training minimises the mean of the loss over a batch. A split is judged by the mean of the loss
over all its terms, without label smoothing, and by the metrics; the first of them decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from secateur.recipe import FinetuneOptions
from secateur.recipe_objective import METRICS, ObjectiveOptions
from secateur.report_base import MetricReport, ObjectiveReport
from torch import Tensor

from engine.data.batches import Batch
from engine.objective.loss import Loss
from engine.objective.losses import LOSSES, path_of, reader_of
from engine.objective.metrics import Metric, metric
from engine.objective.reading import Pair, Reader
from engine.objective.uploaded import (
    UploadedLoss,
    UploadedModule,
    UploadedTally,
    WholeReader,
    lacking,
)


@dataclass(frozen=True)
class Objective:
    """What a job minimises and judges by.

    Attributes:
        options: of the recipe.
        loss: that is minimised and reported.
        metrics: measured ones; the first decides.
        module: the uploaded loss, for trainings that ask for it.
        metric_module: the uploaded metric.
    """

    options: ObjectiveOptions
    loss: Loss
    metrics: tuple[Metric, ...]
    module: UploadedModule | None = None
    metric_module: UploadedModule | None = None

    @property
    def decides(self) -> Metric:
        """The metric that decides."""
        return self.metrics[0]

    @property
    def needs_targets(self) -> bool:
        """Whether a split must have target tensors to be judged on."""
        return self.loss.reader.needs_targets

    @property
    def takes_all_targets(self) -> bool:
        """Whether nothing but uploaded modules looks at targets."""
        return all(isinstance(reader, WholeReader) for reader in self.readers)

    @property
    def readers(self) -> list[Reader]:
        """Every way outputs and targets are read, the loss's first."""
        return list(dict.fromkeys([self.loss.reader, *(one.reader for one in self.metrics)]))

    def check_modules(self, output: Any, batch: Batch) -> None:
        """Try the uploaded modules on a batch and what the model gives for it.

        Raises:
            ObjectiveModuleInvalid: one of them does not do what it must.
        """
        reader = WholeReader(path_of(self.options), self.options.target)
        for module in (self.module, self.metric_module):
            if module is not None:
                module.check(reader.read(output, batch))

    @property
    def scores_classes(self) -> bool:
        """Whether `scores` are [positions, classes, ...] of which one is right.

        An uploaded loss says nothing of it; its output is taken for one.
        """
        return self.loss.reader.scores_classes

    def pair(self, output: Any, batch: Batch) -> Pair:
        """What the loss compares."""
        return self.loss.reader.read(output, batch)

    def scores(self, output: Any) -> Tensor:
        """What a teacher's output and a student's are compared by."""
        return self.loss.reader.scores(output)

    def mean_loss(self, output: Any, batch: Batch) -> Tensor:
        """The loss of a batch as it is reported: without label smoothing, differentiable."""
        pair = self.pair(output, batch)
        return self._plain.mean(pair)

    def mean_loss_towards(self, output: Any, targets: Tensor, batch: Batch) -> Tensor:
        """The same towards targets in the family's form, such as drawn ones."""
        scores = self.scores(output)
        return self._plain.mean(Pair(self.loss.reader.wide(scores), targets, batch.size))

    def report(self) -> ObjectiveReport:
        """What a report says of it."""
        return ObjectiveReport(
            loss=self.loss.name,
            metrics=[
                MetricReport(
                    name=one.name,
                    title=METRICS[one.name].title if one.name in METRICS else "uploaded metric",
                    higher_is_better=one.higher_is_better,
                    fraction=one.name in METRICS and METRICS[one.name].fraction,
                )
                for one in self.metrics
            ],
        )

    def trained_by(self, options: FinetuneOptions) -> Objective:
        """The objective of a training, which may ask for another loss or another smoothing."""
        smoothing = options.label_smoothing or self.options.label_smoothing
        if options.loss in (None, self.options.loss) and smoothing == self.options.label_smoothing:
            return self
        named = self.options.model_copy(
            update={
                "loss": options.loss or self.options.loss,
                "label_smoothing": smoothing,
            }
        )
        return replace(self, loss=_loss(named, self.module))

    @property
    def _plain(self) -> Loss:
        if not self.options.label_smoothing:
            return self.loss
        return _loss(self.options.model_copy(update={"label_smoothing": 0.0}), self.module)


def resolve(
    options: ObjectiveOptions,
    *,
    loss: Path | None = None,
    metric_module: Path | None = None,
    device: str = "cpu",
) -> Objective:
    """The objective that a recipe describes.

    Args:
        options: of the recipe.
        loss: file of the uploaded loss, for `loss: module`.
        metric_module: file of the uploaded metric, for `metric: module`.
        device: where the model lies.

    Raises:
        NotTorchScript: an uploaded module is no TorchScript program.
        ObjectiveModuleInvalid: a module that the recipe asks for is missing.
    """
    module = None if loss is None else UploadedModule.load(loss, "loss", device=device)
    own = _loss(options, module)
    judge = (
        None
        if metric_module is None
        else UploadedModule.load(metric_module, "metric", device=device)
    )
    return Objective(
        options=options,
        loss=own,
        metrics=tuple(_metric(name, options, own, judge) for name in options.measured),
        module=module,
        metric_module=judge,
    )


def _loss(options: ObjectiveOptions, module: UploadedModule | None) -> Loss:
    if options.loss != "module":
        return LOSSES[options.loss](options)
    if module is None:
        raise lacking("loss")
    return UploadedLoss(WholeReader(path_of(options), options.target), module)


def _metric(
    name: str, options: ObjectiveOptions, loss: Loss, module: UploadedModule | None
) -> Metric:
    if name == "module":
        if module is None:
            raise lacking("metric")
        reader = WholeReader(path_of(options), options.target)
        begin = partial(UploadedTally, module)
        return Metric(name, bool(options.higher_is_better), reader, begin)
    own = options.loss == "module" and name != "loss"
    return metric(name, reader_of(name, options) if own else loss.reader)


CLASSIFICATION = resolve(ObjectiveOptions())
"""Cross-entropy and top-1 accuracy: what a recipe that says nothing asks for."""
