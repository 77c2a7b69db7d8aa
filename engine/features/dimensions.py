"""Which dimension of an activation counts its channels.

Convolutions and the normalisations beside them put channels into dimension 1, layers that multiply
by matrices and those beside them into the last one. Operators that act element by element, pool or
only reorder dimensions hand them on. What cannot be followed (a reshape) has them where tensors of
its rank usually do: in dimension 1 of two, four and more dimensions, in the last of three.
"""

from __future__ import annotations

from engine.tape import Step, Tape, TensorValue, flatten

_SECOND = ("conv", "_convolution", "batch_norm", "group_norm", "instance_norm", "prelu")
_LAST = (
    "linear", "addmm", "matmul", "mm", "layer_norm", "rms_norm", "embedding", "lstm", "gru", "rnn",
    "scaled_dot_product_attention", "native_layer_norm",
)  # fmt: skip
_UNKNOWN = frozenset({"aten::view", "aten::reshape", "aten::flatten", "aten::unflatten"})
_MATRIX = 2
_SEQUENCE = 3


def channel_dimensions(tape: Tape) -> dict[int, int]:
    """By number of a tensor of the run, the dimension of its channels where it can be followed."""
    known: dict[int, int] = {}
    for step in tape.steps:
        for value in flatten(step.outputs):
            found = _of(step, value, known)
            if found is not None:
                known[value.number] = found
            else:
                known.pop(value.number, None)
    return known


def usual_dimension(shape: tuple[int, ...]) -> int:
    """Where channels lie in a tensor of which nothing else is known."""
    return len(shape) - 1 if len(shape) == _SEQUENCE else min(1, len(shape) - 1)


def _of(step: Step, value: TensorValue, known: dict[int, int]) -> int | None:
    rank = len(value.shape)
    name = step.kind.removeprefix("aten::")
    if rank <= _MATRIX:
        return rank - 1 if rank else None
    if name.startswith(_SECOND):
        return 1
    if name in _LAST:
        return rank - 1
    if step.kind in _UNKNOWN:
        return None
    for operand in step.tensors():
        if operand.number in known and len(operand.shape) == rank and operand.name is None:
            return _moved(step, known[operand.number], rank)
    return None


def _moved(step: Step, dim: int, rank: int) -> int:
    """Where an operator that reorders dimensions puts one; others leave it."""
    if step.kind == "aten::permute":
        order = [int(place) % rank for place in step.argument("dims", range(rank))]
        return order.index(dim)
    if step.kind == "aten::transpose":
        first, second = (int(step.argument(name, 0)) % rank for name in ("dim0", "dim1"))
        return {first: second, second: first}.get(dim, dim)
    return dim
