"""Every loss by its name in the recipe."""

from __future__ import annotations

from collections.abc import Callable

from secateur.recipe_objective import ObjectiveOptions

from engine.objective.binary import BinaryCrossEntropy, LabelReader
from engine.objective.classes import ClassReader, CrossEntropy
from engine.objective.loss import Loss
from engine.objective.reading import Reader
from engine.objective.tokens import TokenReader
from engine.objective.values import ElementLoss, ValueReader


def path_of(options: ObjectiveOptions) -> str | None:
    """The output's path as text."""
    return None if options.output is None else str(options.output)


def _classes(options: ObjectiveOptions) -> Loss:
    return CrossEntropy(_class_reader(options), options.label_smoothing)


def _segmentation(options: ObjectiveOptions) -> Loss:
    reader = ClassReader(path_of(options), options.target, options.ignore_index, dense=True)
    return CrossEntropy(reader, options.label_smoothing, "segmentation")


def _next_token(options: ObjectiveOptions) -> Loss:
    reader = TokenReader(path_of(options), options.target, options.ignore_index)
    return CrossEntropy(reader, options.label_smoothing, "next_token")


def _binary(options: ObjectiveOptions) -> Loss:
    return BinaryCrossEntropy(LabelReader(path_of(options), options.target))


def _mse(options: ObjectiveOptions) -> Loss:
    return ElementLoss(_value_reader(options), "mse")


def _l1(options: ObjectiveOptions) -> Loss:
    return ElementLoss(_value_reader(options), "l1")


def _smooth_l1(options: ObjectiveOptions) -> Loss:
    return ElementLoss(_value_reader(options), "smooth_l1", options.beta)


LOSSES: dict[str, Callable[[ObjectiveOptions], Loss]] = {
    "cross_entropy": _classes,
    "segmentation": _segmentation,
    "next_token": _next_token,
    "bce_with_logits": _binary,
    "mse": _mse,
    "l1": _l1,
    "smooth_l1": _smooth_l1,
}
"""All but `module`, which comes with the job."""


def reader_of(metric: str, options: ObjectiveOptions) -> Reader:
    """How a metric reads what an uploaded loss says nothing of."""
    if metric in ("accuracy", "top5", "miou"):
        return _class_reader(options)
    if metric == "binary_accuracy":
        return LabelReader(path_of(options), options.target)
    return _value_reader(options)


def _class_reader(options: ObjectiveOptions) -> ClassReader:
    return ClassReader(path_of(options), options.target, options.ignore_index)


def _value_reader(options: ObjectiveOptions) -> ValueReader:
    return ValueReader(path_of(options), options.target)
