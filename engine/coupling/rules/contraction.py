r"""Matrix products: linear, matmul, mm, bmm, addmm, baddbmm, embedding, embedding_bag.

:math:`Y_{..ij} = \sum_k A_{..ik} B_{..kj}`: the summed dimensions correspond, rows and columns
pass through, batch dimensions broadcast. Removing k from both removes one term of the sum, and a
term whose weight is zero is nothing: exact.
"""

from __future__ import annotations

from engine.coupling.heads import note_heads
from engine.coupling.labels import Dimension
from engine.coupling.rules.einsum import add
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, TensorValue, flatten

_SUMMED = "summed together in a matrix product"


@rule("linear")
def linear(tracker: Tracker, step: Step) -> None:
    """`x @ weight.T + bias`."""
    value, weight, bias = step.arguments[0], step.arguments[1], step.argument("bias")
    labels, weights = tracker.labels(value), tracker.labels(weight)
    tracker.mark(weights[0] if len(weights) > 1 else None, "output")
    tracker.mark(weights[-1], "input")
    tracker.unite(labels[-1], weights[-1], step, _SUMMED)
    if len(weights) == 1:
        tracker.assign(step.outputs[0], labels[:-1])
        return
    if isinstance(bias, TensorValue):
        tracker.unite(weights[0], tracker.labels(bias)[0], step, "bias of the neuron")
        tracker.mark(tracker.labels(bias)[0], "vector")
    tracker.assign(step.outputs[0], [*labels[:-1], weights[0]])


@rule("matmul", "linalg_matmul", "mm", "bmm", "mv", "dot", "vdot")
def matmul(tracker: Tracker, step: Step) -> None:
    """Matrix product of any ranks, as torch.matmul defines it."""
    left, right = step.arguments[0], step.arguments[1]
    tracker.assign(step.outputs[0], product(tracker, step, left, right))


def product(tracker: Tracker, step: Step, left: TensorValue, right: TensorValue) -> list[Dimension]:
    """Labels of `left @ right`."""
    a, b = tracker.labels(left), tracker.labels(right)
    summed = b[0] if len(b) == 1 else b[-2]
    tracker.unite(a[-1], summed, step, _SUMMED)
    if tracker.zeros.lost(left) and tracker.zeros.lost(right):
        tracker.mixes(step, a[-1])
    if right.name is not None and len(b) > 1:
        tracker.mark(b[-1], "output")
        tracker.mark(summed, "input")
    if left.name is not None and len(a) > 1:
        tracker.mark(a[-2], "output")
        tracker.mark(a[-1], "input")
    rows = [a[-2]] if len(a) > 1 else []
    columns = [b[-1]] if len(b) > 1 else []
    batch = tuple(step.outputs[0].shape)[: len(step.outputs[0].shape) - len(rows) - len(columns)]
    return [*_batch(tracker, step, [left, right], batch), *rows, *columns]


def _batch(
    tracker: Tracker, step: Step, operands: list[TensorValue], batch: tuple[int, ...]
) -> list[Dimension]:
    """Labels of the leading dimensions, which broadcast like a pointwise operator's."""
    result: list[Dimension] = [None] * len(batch)
    for position, size in enumerate(batch):
        met = []
        for value in operands:
            dim = position - len(batch) + len(value.shape) - 2
            if len(value.shape) > 2 and dim >= 0 and value.shape[dim] == size and size > 1:
                met.append(tracker.labels(value)[dim])
        first = next((labels for labels in met if labels is not None), None)
        for labels in met:
            tracker.unite(first, labels, step, "batch dimension of a matrix product")
            if all(value.name is None for value in operands):
                note_heads(tracker, labels)
        result[position] = first
    return result


@rule("addmm", "baddbmm", "addmv")
def addmm(tracker: Tracker, step: Step) -> None:
    """`bias + left @ right`."""
    bias, left, right = step.arguments[0], step.arguments[1], step.arguments[2]
    result = product(tracker, step, left, right)
    add(tracker, step, bias, result)
    tracker.assign(step.outputs[0], result)


@rule("embedding")
def embedding(tracker: Tracker, step: Step) -> None:
    """Rows are looked up by value and stay; columns become the last dimension."""
    weight, indices = step.arguments[0], step.arguments[1]
    rows, columns = tracker.labels(weight)
    tracker.freeze(rows, step, "rows are looked up by index", report=False)
    tracker.mark(columns, "output")
    result: list[Dimension] = [None] * len(indices.shape)
    for labels in tracker.labels(indices):
        tracker.freeze(labels, step, "used as an index")
    tracker.assign(step.outputs[0], [*result, columns])


@rule("embedding_bag")
def embedding_bag(tracker: Tracker, step: Step) -> None:
    """Rows are looked up and summed, averaged or compared column by column."""
    weight = step.arguments[0]
    rows, columns = tracker.labels(weight)
    tracker.freeze(rows, step, "rows are looked up by index", report=False)
    tracker.mark(columns, "output")
    for value in step.tensors()[1:]:
        for labels in tracker.labels(value):
            tracker.freeze(labels, step, "used as an index")
    for output in flatten(step.outputs):
        wide = len(output.shape) == 2 and output.shape[1] == weight.shape[1]
        tracker.assign(output, [None, columns] if wide else [None] * len(output.shape))
