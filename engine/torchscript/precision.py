"""A program in float64, for comparisons in which rounding does not count.

Three things give a tensor its type: the type of a weight or baked constant, which is converted;
the default type, see `made_in_float64`; and operands that name a type (`x.half()`,
`zeros(..., dtype=...)`), baked or computed (an attribute, a choice): where they name a lower
floating-point type, they are made to name float64. What follows the type of another tensor
(`type_as`, `zeros_like`) does so by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine.torchscript.edit import GraphEditor
from engine.torchscript.instructions import Instruction, walk
from engine.torchscript.program import Program

_HALVES = {5: torch.float16, 15: torch.bfloat16}
_LOWER_DTYPES = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}
_WIDER = {5: 7, 6: 7, 15: 7, 9: 10}
"""The same in TorchScript's numbers."""


@contextmanager
def made_in_float64() -> Iterator[None]:
    """Tensors that a program makes without naming a type are float64 as well."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def comparison_tolerance(program: Program) -> float:
    """How far two ways to run a program may differ, relative to its largest output.

    Executors and fused kernels sum in other orders: 1e-3 leaves room for that in float32, and
    eight times the rounding of the coarsest type among weights and casts in half types. A wrong
    program is off by far more.
    """
    types = {tensor.dtype for tensor in program.tensors().values() if tensor.is_floating_point()}
    numbers = {number for _, _, number in _named_types(program) if number is not None}
    types |= {dtype for number, dtype in _HALVES.items() if number in numbers}
    return max([1e-3, *(8 * torch.finfo(dtype).eps for dtype in types if dtype.itemsize == 2)])


def in_float64(program: Program) -> Program:
    """A copy whose tensors, baked constants and casts are all float64."""
    baked = [
        instruction
        for instruction in walk(program.block)
        if isinstance(instruction.constant, torch.Tensor)
        and instruction.constant.dtype in _LOWER_DTYPES
    ]
    if not baked and not any(True for _ in _named_types(program)):
        twin = program.twin(share=True)
        _widen(twin)
        return twin
    fresh = program.copy(share=True)
    editor = GraphEditor(fresh)
    for instruction in walk(fresh.block):
        constant: Any = instruction.constant
        if isinstance(constant, torch.Tensor) and constant.dtype in _LOWER_DTYPES:
            editor.replace_constant(instruction, constant.to(_LOWER_DTYPES[constant.dtype]))
    for instruction, position, number in list(_named_types(fresh)):
        if number is not None:
            editor.replace_operand(instruction, position, _WIDER[number])
        else:
            _lift(*fresh.place(instruction), position)
    _widen(fresh)
    fresh.edited()
    return fresh


def _widen(program: Program) -> None:
    """Convert the tensors of a copy one by one; what needs none was shared until now."""
    program.own(
        [name for name, own in program.attributes().items() if own.dtype not in _LOWER_DTYPES]
    )
    program.module.double()
    for name, tensor in program.attributes().items():
        if tensor.is_complex():  # which `double` passes by
            program.set_tensor(name, tensor.to(torch.complex128))


def lifted_types(instruction: Instruction, arguments: list[Any]) -> list[Any]:
    """Arguments of an operator, with float64 in the place of a lower floating-point type."""
    operator = instruction.operator
    if operator is None or "dtype" not in operator.arguments:
        return arguments
    position = operator.arguments.index("dtype")
    given = arguments[position]
    wider = _WIDER.get(given) if isinstance(given, int) else _LOWER_DTYPES.get(given)
    if wider is None:
        return arguments
    return [*arguments[:position], wider, *arguments[position + 1 :]]


def _lifted(number: int) -> int:
    """Float64 for a lower floating-point type; any other type as it is."""
    if number == 9:
        return 10
    return 7 if number in [5, 6, 15] else number


def _lifted_if_any(number: int | None) -> int | None:
    return None if number is None else _lifted(number)


def _lift(node: Any, graph: Any, position: int) -> None:
    """Pass a computed type through `_lifted`."""
    graph.setInsertPoint(node)
    operand = list(node.inputs())[position]
    sure = operand.type().kind() == "IntType"
    function = torch.jit.script(_lifted if sure else _lifted_if_any).graph.copy()
    torch._C._jit_pass_inline(function)
    (lifted,) = graph.insertGraph(function, [operand])
    node.replaceInput(position, lifted)


def _named_types(program: Program) -> Iterator[tuple[Instruction, int, int | None]]:
    """Operands that name a lower floating-point type, or may: where, and its number if baked."""
    constants = {
        instruction.outputs[0]: instruction.constant
        for instruction in walk(program.block)
        if instruction.kind == "prim::Constant"
    }
    own = {
        instruction.outputs[0]
        for instruction in walk(program.block)
        if instruction.kind == "prim::dtype"
    }
    for instruction in walk(program.block):
        operator = instruction.operator
        if operator is None or "dtype" not in operator.arguments:
            continue
        position = operator.arguments.index("dtype")
        value = instruction.inputs[position]
        if value in constants:
            number = constants[value]
            if isinstance(number, int) and number in _WIDER:
                yield instruction, position, number
        elif value not in own:
            # A tensor's own type is float64 once the tensor is.
            yield instruction, position, None
