r"""Which activations are not zero where the weights of a channel are.

A removed channel leaves zeros behind its layer, and a function f with f(0) = 0 keeps them. Sigmoid,
exp, cosine or an added number do not: :math:`\sigma(0) = 1/2`. What reads such a channel through a
weight multiplies by zero again. A product of two activations does not: where both lost their zeros
it sums :math:`\sigma(0)\,\sigma(0)` for every removed channel, and so it is named as mixing.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Any

import torch

from engine.tape import Step, TensorValue, flatten
from engine.torchscript.instructions import Operator

_WEIGHED = ("conv", "linear", "mm", "matmul", "bmm", "einsum", "norm", "embedding")


class Zeros:
    """Follows the tape; numbers of tensors that lost their zeros."""

    def __init__(self) -> None:
        self._lost: set[int] = set()

    def lost(self, value: TensorValue) -> bool:
        """Whether removed channels of an activation may hold something else than zero."""
        return value.number in self._lost

    def follow(self, step: Step) -> None:
        """Note what a step gives."""
        given = list(step.tensors())
        if any(value.name is not None for value in given) and any(
            part in step.kind for part in _WEIGHED
        ):
            return
        lost = [self.lost(value) for value in given]
        multiplied = step.kind in {"aten::mul", "aten::multiply"}
        if (all(lost) if multiplied else any(lost)) or _gives_more(step, given):
            self._lost.update(value.number for value in flatten(step.outputs))


def _gives_more(step: Step, given: list[TensorValue]) -> bool:
    """Whether a function of one activation is not zero at zero."""
    operator = step.instruction.operator
    if operator is None or not operator.pointwise or len(given) != 1 or given[0].name is not None:
        return False
    if not given[0].dtype.is_floating_point:
        return False
    arguments = tuple(_X if isinstance(own, TensorValue) else own for own in step.arguments)
    try:
        hash(arguments)
    except TypeError:  # a list among them
        return _more_than_zero(operator, arguments)
    return _known(operator, arguments)


class _Activation(Enum):
    X = 0


_X = _Activation.X


def _more_than_zero(operator: Operator, arguments: tuple[Any, ...]) -> bool:
    """Whether an operator gives anything else than zero where the activation is zero."""
    zero = torch.zeros(1, dtype=torch.float64)
    try:
        found = operator(*(zero if own is _X else own for own in arguments))
    except (RuntimeError, TypeError):
        return True
    return not isinstance(found, torch.Tensor) or bool((found != 0).any())


_known = lru_cache(maxsize=4096)(_more_than_zero)
