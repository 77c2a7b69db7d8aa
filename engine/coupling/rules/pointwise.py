"""Operators that act on each element alone, with broadcasting.

Aligned from the right, every operand dimension as long as the output's corresponds index by
index; a dimension of size 1 is repeated and corresponds to nothing. Any operator that torch tags
pointwise takes this rule; those listed here are pointwise without the tag.
"""

from __future__ import annotations

from engine.coupling.labels import Dimension
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, TensorValue, flatten


@rule(
    "add", "dropout", "feature_dropout", "alpha_dropout", "relu6", "where", "masked_fill", "to",
    "type_as", "contiguous", "clone", "detach", "alias", "lift_fresh", "_to_copy", "float",
    "double", "half", "zeros_like", "ones_like", "full_like", "empty_like", "rand_like",
    "randn_like",
    "native_dropout", "hardswish", "hardsigmoid", "hardtanh", "silu", "mish", "celu", "selu",
    "copy", "rsub", "bernoulli", "logical_not", "fake_quantize_per_tensor_affine", "rrelu",
)  # fmt: skip
def pointwise(tracker: Tracker, step: Step) -> None:
    """Unite the aligned dimensions of all operands."""
    if step.kind == "aten::where" and len(step.arguments) == 1:
        tracker.unknown(step)  # positions of what is not zero, like nonzero
        return
    operands = step.tensors()
    for output in flatten(step.outputs):
        tracker.assign(output, broadcast(tracker, step, operands, output.shape))


def broadcast(
    tracker: Tracker, step: Step, operands: list[TensorValue], shape: tuple[int, ...]
) -> list[Dimension]:
    """Labels of the result of broadcasting operands together to a shape."""
    result: list[Dimension] = [None] * len(shape)
    for position, size in enumerate(shape):
        if size == 1:
            continue
        met: list[tuple[Dimension, TensorValue]] = []
        for value in operands:
            dim = position - len(shape) + len(value.shape)
            if dim >= 0 and value.shape[dim] == size:
                met.append((tracker.merged_labels(value)[dim], value))
        if not met:
            continue
        first = next((labels for labels, _ in met if labels is not None), None)
        if len({labels.shape for labels, _ in met if labels is not None}) > 1:
            # Merged dimensions meet plain ones: one row of each stays.
            met = [
                (tracker.labels(value)[len(value.shape) - len(shape) + position], value)
                for _, value in met
            ]
            first = next((labels for labels, _ in met if labels is not None), None)
        for labels, value in met:
            tracker.unite(first, labels, step, "combined element by element")
            if value.name is not None:
                tracker.mark(labels, "vector")
        result[position] = first
    return result


@rule("prelu")
def prelu(tracker: Tracker, step: Step) -> None:
    """A slope per channel (dimension 1)."""
    value, weight = step.arguments[0], step.arguments[1]
    labels = tracker.labels(value)
    if weight.shape and weight.shape[0] > 1:
        slope = tracker.labels(weight)[0]
        tracker.unite(labels[1], slope, step, "one slope per channel")
        tracker.mark(slope, "vector")
    tracker.assign(step.outputs[0], labels)


@rule("glu")
def glu(tracker: Tracker, step: Step) -> None:
    """The halves along one dimension gate each other, index by index."""
    value = step.arguments[0]
    labels = tracker.labels(value)
    dim = int(step.argument("dim", -1)) % len(value.shape)
    both = labels[dim]
    if both is not None:
        half = both.size // 2
        tracker.unite(both[:half], both[half:], step, "gated halves")
        labels[dim] = both[:half]
    tracker.assign(step.outputs[0], labels)
