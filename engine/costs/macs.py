r"""MACs of a program after a removal, worked out from shapes alone.

Every operator that multiplies carries out

- convolution: :math:`|y| \cdot |W| / O`, for each output the weights of one filter; transposed
  :math:`|x| \cdot |W| / I`, for each input the weights that spread it,
- matrix product :math:`A B`: :math:`|A B| \cdot k`, with k the length that is summed over,
- attention: :math:`|Q| m + (|Q| / d) m d_v` for m keys of d and values of :math:`d_v` numbers,

and the coupling knows the shape that each of these tensors has once some components are gone. So
the MACs of a removal cost one pass over the operators, without a model being cut, which is what
makes a search over amounts cheap. Operators of other kinds (recurrent layers, einsum) are taken to
shrink in proportion; what was found this way is checked on the model that is really cut.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from engine.compaction.survivors import Components, Survivors
from engine.coupling import Coupling
from engine.tape import Step, TensorValue

_PRODUCTS = {
    "aten::linear": ("input", "weight"),
    "aten::matmul": ("self", "other"),
    "aten::mm": ("self", "mat2"),
    "aten::mv": ("self", "vec"),
    "aten::bmm": ("self", "mat2"),
    "aten::addmm": ("mat1", "mat2"),
    "aten::addmv": ("mat", "vec"),
    "aten::baddbmm": ("batch1", "batch2"),
    "aten::addbmm": ("batch1", "batch2"),
}
"""Matrix products, with the names of their factors; the first one's rows are summed over."""
_CONVOLUTIONS = frozenset(
    {"aten::_convolution", "aten::convolution"}
    | {f"aten::conv{form}{dims}d" for form in ("", "_transpose") for dims in (1, 2, 3)}
)
Shape = tuple[int, ...]
ShapeOf = Callable[[TensorValue], Shape]


class MacsBySelection:
    """The MACs of one program for any removal of its components."""

    def __init__(self, coupling: Coupling, macs: int) -> None:
        """Take the operators that multiply out of the coupling's tape.

        Args:
            coupling: of the program.
            macs: of the program as it is, counted per sample.
        """
        self._coupling = coupling
        self._macs = macs
        self._steps = [step for step in coupling.tape.steps if _multiplies(step)]
        self._whole = self._count(np.empty(0, np.int64))

    @property
    def known(self) -> bool:
        """Whether any of its operators is of a kind that is counted here."""
        return self._whole > 0

    def after(self, removed: Components) -> float:
        """MACs per sample once these components are gone."""
        return self._macs * self._count(removed) / self._whole if self.known else float(self._macs)

    def _count(self, removed: Components) -> int:
        survivors = Survivors(self._coupling, removed)

        def shape(value: TensorValue) -> Shape:
            return survivors.shape(value.number, value.shape)

        return sum(_operations(step, shape) for step in self._steps)


def _multiplies(step: Step) -> bool:
    attention = step.kind == "aten::scaled_dot_product_attention"
    return attention or step.kind in _PRODUCTS or step.kind in _CONVOLUTIONS


def _operations(step: Step, shape: ShapeOf) -> int:
    output = prod(shape(step.outputs[0]))
    if step.kind in _PRODUCTS:
        first = step.argument(_PRODUCTS[step.kind][0])
        return output * _last(shape(first))
    if step.kind in _CONVOLUTIONS:
        weight = shape(step.argument("weight"))
        transposed = "transpose" in step.kind or bool(step.argument("transposed", False))
        spread = prod(shape(step.argument("input"))) if transposed else output
        return spread * prod(weight[1:])
    query, key, value = (shape(step.argument(name)) for name in ("query", "key", "value"))
    rows = prod(query[:-1])
    return rows * key[-2] * (query[-1] + value[-1])


def _last(shape: Shape) -> int:
    return shape[-1] if shape else 1
