"""Casts put into a graph: of operands, of baked constants, and of what forward gives.

Only for a fresh copy of a program whose graph has not run (see `engine.torchscript.program`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.errors import UnsupportedOperator
from engine.structure import tensors_in
from engine.torchscript.instructions import Instruction
from engine.torchscript.program import Program

_NUMBERS = {torch.float16: 5, torch.float32: 6, torch.float64: 7, torch.bfloat16: 15}
"""TorchScript's numbers for types."""


def _cast_optional(value: Tensor | None, number: int) -> Tensor | None:
    if value is not None and value.is_floating_point():
        return value.to(number)
    return value


def _cast_list(values: list[Tensor], number: int) -> list[Tensor]:
    return [item.to(number) if item.is_floating_point() else item for item in values]


def _cast_dictionary(values: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    return {
        key: item.to(number) if item.is_floating_point() else item for key, item in values.items()
    }


_BY_TYPE: dict[str, Callable[..., Any]] = {
    "Optional[Tensor]": _cast_optional,
    "List[Tensor]": _cast_list,
    "Dict[str, Tensor]": _cast_dictionary,
}


def cast_operands(
    program: Program, instruction: Instruction, positions: Iterable[int], dtype: torch.dtype
) -> None:
    """Cast operands of an instruction: tensors, which are floats, and those in lists that are."""
    node, graph = program.place(instruction)
    for position in positions:
        graph.setInsertPoint(node)
        value = node.inputsAt(position)
        node.replaceInput(position, _inserted(graph, value, dtype, instruction.location))


def cast_inputs(program: Program, example: Sequence[Any], dtype: torch.dtype) -> None:
    """Cast every floating-point tensor that forward takes, before anything reads it.

    Args:
        program: to edit.
        example: arguments of forward; says which of them are floats.
        dtype: that they are to have.

    Raises:
        UnsupportedOperator: an argument is a structure that cannot be cast.
    """
    graph = program.graph
    _, *arguments = graph.inputs()
    first = next(iter(graph.nodes()), graph.return_node())
    for value, given in zip(arguments, example, strict=False):
        if not any(one.is_floating_point() for one in tensors_in([given])):
            continue
        graph.setInsertPoint(first)
        cast = _rebuilt(graph, value, given, dtype)
        behind = graph.insertConstant(None).node()
        value.replaceAllUsesAfterNodeWith(behind, cast)


def cast_outputs(program: Program, example: Any, dtype: torch.dtype) -> None:
    """Cast every floating-point tensor that forward gives.

    Args:
        program: to edit.
        example: what forward gave once; says which outputs are floats.
        dtype: that they are to have.

    Raises:
        UnsupportedOperator: the outputs lie in a structure that cannot be cast.
    """
    graph = program.graph
    returned = graph.return_node()
    graph.setInsertPoint(returned)
    (value,) = graph.outputs()
    returned.replaceInput(0, _rebuilt(graph, value, example, dtype))


def forget_types(program: Program) -> None:
    """Take what tracing wrote of types and shapes out of the graph; casts make it untrue."""
    torch._C._jit_pass_erase_shape_information(program.graph)


def _rebuilt(graph: Any, value: Any, example: Any, dtype: torch.dtype) -> Any:
    if isinstance(example, Tensor) and not example.is_floating_point():
        return value
    if value.type().kind() != "TupleType":
        return _inserted(graph, value, dtype, "forward")
    producer = value.node()
    if producer.kind() == "prim::TupleConstruct":
        items = list(producer.inputs())
    else:
        own = value.type().elements()
        unpacked = graph.create("prim::TupleUnpack", [value], len(own))
        graph.insertNode(unpacked)
        items = list(unpacked.outputs())
        for item, kind in zip(items, own, strict=True):
            item.setType(kind)
    cast = [_rebuilt(graph, item, given, dtype) for item, given in zip(items, example, strict=True)]
    made = graph.create("prim::TupleConstruct", cast, 1)
    graph.insertNode(made)
    made.output().setType(value.type())
    return made.output()


def _inserted(graph: Any, value: Any, dtype: torch.dtype, where: str) -> Any:
    kind = str(value.type().annotation_str)
    if "Tensor" not in kind:
        return value
    number = graph.insertConstant(_NUMBERS[dtype])
    if kind == "Tensor":
        off, nothing = graph.insertConstant(False), graph.insertConstant(None)
        cast = graph.create("aten::to", [value, number, off, off, nothing], 1)
        graph.insertNode(cast)
        cast.output().setType(torch._C.TensorType.get())
        return cast.output()
    function = _BY_TYPE.get(kind)
    if function is None:
        raise UnsupportedOperator(
            f"tensors in a {kind} cannot be cast where the program passes them on",
            where=where or "forward",
            hint="return tensors, tuples, lists of tensors or dictionaries from text to tensors, "
            "or use `compute: float32`, which changes no operator",
        )
    body = torch.jit.script(function).graph.copy()
    torch._C._jit_pass_inline(body)
    (made,) = graph.insertGraph(body, [value, number])
    return made
