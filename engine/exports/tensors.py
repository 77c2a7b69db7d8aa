"""The model with tensors alone on both sides and no control flow that its shapes decide."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.certify import relative_error
from engine.errors import EngineError
from engine.exports.request import ExportRequest
from engine.structure import samples_in, tensors_in
from engine.torchscript.flat import flatten
from engine.torchscript.program import Program
from engine.torchscript.straight import straighten


@dataclass(frozen=True)
class TensorCase:
    """A call: tensors in, tensors out, in the order of their names."""

    inputs: tuple[Tensor, ...]
    expected: list[Tensor]

    @property
    def batch_size(self) -> int:
        """Samples."""
        return samples_in(self.inputs)


@dataclass(frozen=True)
class TensorModel:
    """A model of tensors.

    Attributes:
        program: its graph may be exported; outputs are a tuple, even of one.
        inputs, outputs: names, in order.
        cases: the example, and another number of samples where TorchScript takes one.
        notes: what the model lost of its interface.
    """

    program: Program
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cases: tuple[TensorCase, ...]
    notes: tuple[str, ...]

    @property
    def with_samples(self) -> list[str]:
        """Inputs whose first dimension is the number of samples."""
        first = self.cases[0]
        return [
            name
            for name, tensor in zip(self.inputs, first.inputs, strict=True)
            if tensor.dim() and tensor.shape[0] == first.batch_size
        ]


def tensor_model(request: ExportRequest, program: Program | None = None) -> TensorModel:
    """The model of a request, with tensors alone.

    Args:
        request: whose TorchScript file gives the results to compare with.
        program: that is exported in the place of the request's.

    Raises:
        UnsupportedOperator: an argument or a result has no place among tensors.
    """
    flat = flatten(program or request.program, request.inputs, request.cases[0].expected)
    cases = tuple(
        TensorCase(tuple(tensors_in(list(case.inputs))), tensors_in([case.expected]))
        for case in request.cases
    )
    program = flat.program
    # What cannot be followed step by step is left to the exporter as it is.
    with suppress(EngineError):
        program = straighten(program, [case.inputs for case in cases])
    notes = [f"`{name}` is fixed to the value of the example" for name in flat.fixed]
    notes += [f"output `{name}` is None for the example and left out" for name in flat.left_out]
    return TensorModel(program, flat.inputs, flat.outputs, cases, tuple(notes))


def largest_error(cases: Iterable[TensorCase], found: Iterable[list[Tensor]]) -> float:
    """Largest difference over the largest output, over all cases; infinite where types differ."""
    error = 0.0
    for case, got in zip(cases, found, strict=True):
        types = [tensor.dtype for tensor in got]
        if types != [tensor.dtype for tensor in case.expected]:
            return float("inf")
        with torch.no_grad():
            error = max(error, relative_error(case.expected, got))
    return error
