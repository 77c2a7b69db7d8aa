"""A program in float64, for comparisons in which rounding does not count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine.torchscript.edit import GraphEditor
from engine.torchscript.instructions import Instruction, walk
from engine.torchscript.program import Program

_FLOAT64 = 7
_LOWER_FLOATS = frozenset({5, 6, 15})
"""TorchScript's numbers of float16, float32 and bfloat16."""


@contextmanager
def made_in_float64() -> Iterator[None]:
    """Tensors that a program makes without naming a type are float64 as well."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def in_float64(program: Program) -> Program:
    """A copy whose tensors, baked constants and casts are all float64."""
    casts = _casts(program)
    baked = [
        instruction
        for instruction in walk(program.block)
        if isinstance(instruction.constant, torch.Tensor)
        and instruction.constant.is_floating_point()
    ]
    if not casts and not baked:
        twin = program.twin()
        twin.module.double()
        return twin
    fresh = program.copy()
    editor = GraphEditor(fresh)
    for instruction in walk(fresh.block):
        constant: Any = instruction.constant
        if isinstance(constant, torch.Tensor) and constant.is_floating_point():
            editor.replace_constant(instruction, constant.double())
    for instruction, position in _casts(fresh):
        editor.replace_operand(instruction, position, _FLOAT64)
    fresh.module.double()
    fresh.edited()
    return fresh


def _casts(program: Program) -> list[tuple[Instruction, int]]:
    """Operands that name a lower floating-point type."""
    numbers = {
        instruction.outputs[0]: instruction.constant
        for instruction in walk(program.block)
        if isinstance(instruction.constant, int) and not isinstance(instruction.constant, bool)
    }
    found = []
    for instruction in walk(program.block):
        operator = instruction.operator
        if operator is not None and "dtype" in operator.arguments:
            position = operator.arguments.index("dtype")
            if numbers.get(instruction.inputs[position]) in _LOWER_FLOATS:
                found.append((instruction, position))
    return found
