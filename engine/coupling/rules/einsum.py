r"""Contractions written with letters: einsum, and the products that are one.

:math:`Y_{o} = \sum_{s} \prod_t A^{(t)}_{\ell_t}`: every operand names its dimensions, and equal
names hold equal indices. So all dimensions of one name correspond. A name of the output carries its
labels there. One that the output lacks is summed: where several operands hold it, removing an index
removes one term of the sum of products, exact when a weight is zero there; where a single operand
holds it (its dimension in the others is missing, or 1 and repeated), it is a plain sum over what
an activation left, which is noted as mixing. A name that an operand holds twice reads its diagonal.
A name that activations share and the output keeps, beside one they sum, may count attention heads.

Einstein's letters are case-sensitive; without an arrow the output has the letters that occur once,
in ASCII order, after the dimensions of the ellipsis, which align from the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from engine.coupling.heads import note_heads
from engine.coupling.labels import Dimension
from engine.coupling.rules.pointwise import broadcast
from engine.coupling.tracker import Tracker, rule
from engine.tape import Step, TensorValue

Names = list[str]
"""One name for each dimension of an operand."""

_ELLIPSIS = "..."


def contract(
    tracker: Tracker,
    step: Step,
    operands: Sequence[TensorValue],
    names: Sequence[Names],
    output: Names,
) -> list[Dimension]:
    """Unite the dimensions of equal names; labels of the output."""
    held: dict[str, list[tuple[Dimension, TensorValue]]] = {}
    for value, own in zip(operands, names, strict=True):
        for dim, (name, labels) in enumerate(zip(own, tracker.labels(value), strict=True)):
            if value.shape[dim] > 1:
                held.setdefault(name, []).append((labels, value))
                if value.name is not None:
                    kept = "output" if len(own) > 1 else "vector"
                    tracker.mark(labels, kept if name in output else "input")  # type: ignore[arg-type]
    result: dict[str, Dimension] = {}
    shared = {name for name, met in held.items() if len({id(value) for _, value in met}) > 1}
    attends = not shared <= set(output) and all(value.name is None for value in operands)
    for name, met in held.items():
        summed = name not in output
        first = next((labels for labels, _ in met if labels is not None), None)
        text = "summed together in a product" if summed else "the same index of a product"
        for labels, _ in met:
            tracker.unite(first, labels, step, text)
            if attends and name in shared and not summed:
                note_heads(tracker, labels)
        if summed and (name not in shared or all(tracker.zeros.lost(value) for _, value in met)):
            tracker.mixes(step, first)
        result[name] = first
    return [result.get(name) for name in output]


@rule("einsum")
def einsum(tracker: Tracker, step: Step) -> None:
    """Any equation, with ellipsis, repeated letters and implicit output."""
    operands = cast("list[TensorValue]", step.arguments[1])
    names, output = parse(step.arguments[0], [len(value.shape) for value in operands])
    tracker.assign(step.outputs[0], contract(tracker, step, operands, names, output))


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[Names], Names]:
    """Names of the dimensions of each operand and of the output.

    The dimensions of an ellipsis are called `...1`, `...2` and so on from the right.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    names = [
        _expand(part, rank - len(part.replace(_ELLIPSIS, "")))
        for part, rank in zip(left.split(","), ranks, strict=True)
    ]
    widest = max(sum(name.startswith(_ELLIPSIS) for name in own) for own in names)
    if arrow:
        return names, _expand(right, widest)
    letters = left.replace(_ELLIPSIS, "").replace(",", "")
    once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
    return names, _expand(_ELLIPSIS + "".join(once), widest)


def _expand(part: str, width: int) -> Names:
    before, ellipsis, after = part.partition(_ELLIPSIS)
    hidden = [f"{_ELLIPSIS}{position}" for position in range(width, 0, -1)] if ellipsis else []
    return [*before, *hidden, *after]


@rule("tensordot")
def tensordot(tracker: Tracker, step: Step) -> None:
    """The listed dimensions are summed in pairs."""
    left, right = step.arguments[0], step.arguments[1]
    a = [f"a{dim}" for dim in range(len(left.shape))]
    b = [f"b{dim}" for dim in range(len(right.shape))]
    pairs = list(zip(step.argument("dims_self"), step.argument("dims_other"), strict=True))
    for own, other in pairs:
        b[other] = a[own]
    summed = {a[own] for own, _ in pairs}
    output = [name for name in [*a, *b] if name not in summed]
    tracker.assign(step.outputs[0], contract(tracker, step, [left, right], [a, b], output))


@rule("inner")
def inner(tracker: Tracker, step: Step) -> None:
    """The last dimensions are summed; a single number only scales."""
    left, right = step.arguments[0], step.arguments[1]
    if not left.shape or not right.shape:
        output = step.outputs[0]
        tracker.assign(output, broadcast(tracker, step, [left, right], output.shape))
        return
    a = [f"a{dim}" for dim in range(len(left.shape) - 1)]
    b = [f"b{dim}" for dim in range(len(right.shape) - 1)]
    names = [[*a, "k"], [*b, "k"]]
    tracker.assign(step.outputs[0], contract(tracker, step, [left, right], names, [*a, *b]))


@rule("outer", "ger")
def outer(tracker: Tracker, step: Step) -> None:
    """Every entry times every entry."""
    operands = step.arguments[:2]
    tracker.assign(step.outputs[0], contract(tracker, step, operands, [["a"], ["b"]], ["a", "b"]))


@rule("linalg_multi_dot", "chain_matmul")
def chain(tracker: Tracker, step: Step) -> None:
    """Neighbours are summed; the first and the last may be vectors."""
    operands = cast("list[TensorValue]", step.arguments[0])
    names = [[f"{position}", f"{position + 1}"] for position in range(len(operands))]
    names[0] = names[0][-len(operands[0].shape) :]
    names[-1] = names[-1][: len(operands[-1].shape)]
    output = [
        *(names[0][:-1]),
        *(names[-1][1:] if len(operands) > 1 else names[0][-1:]),
    ]
    tracker.assign(step.outputs[0], contract(tracker, step, operands, names, output))


@rule("bilinear")
def bilinear(tracker: Tracker, step: Step) -> None:
    """`left[..., i] weight[o, i, j] right[..., j] + bias[o]`."""
    left, right, weight = step.arguments[:3]
    batch = [f"batch{dim}" for dim in range(len(left.shape) - 1)]
    names = [[*batch, "i"], [*batch, "j"], ["o", "i", "j"]]
    result = contract(tracker, step, [left, right, weight], names, [*batch, "o"])
    add(tracker, step, step.argument("bias"), result)
    tracker.assign(step.outputs[0], result)


@rule("addbmm")
def addbmm(tracker: Tracker, step: Step) -> None:
    """The products of a batch of matrices, summed over the batch, and a bias."""
    bias, left, right = step.arguments[:3]
    result = contract(tracker, step, [left, right], [[*"bik"], [*"bkj"]], [*"ij"])
    add(tracker, step, bias, result)
    tracker.assign(step.outputs[0], result)


@rule("addr")
def addr(tracker: Tracker, step: Step) -> None:
    """The outer product of two vectors, and a bias."""
    bias, left, right = step.arguments[:3]
    result = contract(tracker, step, [left, right], [["a"], ["b"]], ["a", "b"])
    add(tracker, step, bias, result)
    tracker.assign(step.outputs[0], result)


def add(tracker: Tracker, step: Step, bias: object, result: list[Dimension]) -> None:
    """Unite what is added to a product with it, aligned from the right."""
    if not isinstance(bias, TensorValue):
        return
    shape = step.outputs[0].shape
    added = broadcast(tracker, step, [bias], shape)
    for position, size in enumerate(shape):
        dim = position - len(shape) + len(bias.shape)
        if size > 1 and dim >= 0 and bias.shape[dim] == size:
            tracker.unite(result[position], added[position], step, "bias of the product")
