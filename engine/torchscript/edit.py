"""Edits of a graph: operands replaced by constants, instructions bypassed and deleted.

Only for a fresh copy of a program whose graph has not run (see `engine.torchscript.program`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from engine.torchscript.instructions import Block, Instruction
from engine.torchscript.program import Program


@dataclass(frozen=True)
class Size:
    """An item of a list of sizes: what it must be where the program as it is gives something else.

    A baked number becomes another number. A computed one (batch times channels, say) is scaled by
    `wanted / given`, so that what was dynamic in it stays so.
    """

    wanted: int
    given: int


class GraphEditor:
    """Changes the nodes of a program's instructions, each in the graph it belongs to."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def place(self, instruction: Instruction) -> tuple[Any, Any]:
        """The node of an instruction, and the graph it is in."""
        return self._program.place(instruction)

    def replace_operand(self, instruction: Instruction, position: int, value: Any) -> None:
        """Make an operand a constant: a number, bool, tensor or list of integers."""
        node, graph = self.place(instruction)
        graph.setInsertPoint(node)
        if isinstance(value, list):
            made = self._list(graph, [graph.insertConstant(int(item)) for item in value])
        else:
            made = graph.insertConstant(value)
        node.replaceInput(position, made)

    def replace_items(
        self,
        instruction: Instruction,
        position: int,
        length: int,
        items: Mapping[int, Size | torch.Tensor],
    ) -> None:
        """Correct some items of a list operand; the others stay computed."""
        node, graph = self.place(instruction)
        graph.setInsertPoint(node)
        operand = list(node.inputs())[position]
        producer = operand.node()
        if producer.kind() == "prim::ListConstruct":
            values = list(producer.inputs())
        else:
            values = [self._item(graph, operand, i) for i in range(length)]
        for index, item in items.items():
            if isinstance(item, torch.Tensor):
                values[index] = graph.insertConstant(item)
                continue
            baked = "prim::Constant" in {producer.kind(), values[index].node().kind()}
            values[index] = (
                graph.insertConstant(item.wanted)
                if baked or item.given <= 0
                else self._scaled(graph, values[index], item)
            )
        made = self._list(graph, values)
        made.setType(operand.type())
        node.replaceInput(position, made)

    def replace_constant(self, instruction: Instruction, tensor: torch.Tensor) -> None:
        """Give every user of a baked tensor another one."""
        node, graph = self.place(instruction)
        graph.setInsertPoint(node)
        node.output().replaceAllUsesWith(graph.insertConstant(tensor))

    def bypass(self, instruction: Instruction, position: int, *, clone: bool) -> None:
        """Give every user of an instruction's output one of its operands, or a copy of it."""
        node, graph = self.place(instruction)
        value = list(node.inputs())[position]
        if clone:
            graph.setInsertPoint(node)
            copied = graph.create("aten::clone", [value, graph.insertConstant(None)], 1)
            graph.insertNode(copied)
            copied.output().setType(value.type())
            value = copied.output()
        node.output().replaceAllUsesWith(value)

    def settle(self, instruction: Instruction, taken: int) -> None:
        """Put the instructions of one block of an `If` in its place; the other one goes."""
        node, _ = self.place(instruction)
        block = list(node.blocks())[taken]
        for inner in list(block.nodes()):
            inner.moveBefore(node)
        for output, value in zip(node.outputs(), block.outputs(), strict=True):
            output.replaceAllUsesWith(value)
        node.destroy()

    def unpack(self, instruction: Instruction, made: Instruction) -> None:
        """Give every user of an unpacked tuple's items what the tuple was made of."""
        (node, _), (tuple_node, _) = self.place(instruction), self.place(made)
        for item, value in zip(node.outputs(), tuple_node.inputs(), strict=True):
            item.replaceAllUsesWith(value)

    def keep_only(self, block: Block, kept: Collection[Instruction]) -> None:
        """Delete all other instructions; nothing that is kept may read them."""
        for instruction in reversed(block.instructions):
            if instruction in kept:
                for inner in instruction.blocks:
                    self.keep_only(inner, kept)
            else:
                self.place(instruction)[0].destroy()

    @staticmethod
    def _item(graph: Any, values: Any, index: int) -> Any:
        position = graph.insertConstant(index)
        node = graph.create("aten::__getitem__", [values, position], 1)
        graph.insertNode(node)
        node.output().setType(torch._C.IntType.get())
        return node.output()

    @staticmethod
    def _scaled(graph: Any, value: Any, size: Size) -> Any:
        ratio = Fraction(size.wanted, size.given)
        for kind, factor in (("aten::mul", ratio.numerator), ("aten::floordiv", ratio.denominator)):
            if factor != 1:
                node = graph.create(kind, [value, graph.insertConstant(factor)], 1)
                graph.insertNode(node)
                node.output().setType(torch._C.IntType.get())
                value = node.output()
        return value

    @staticmethod
    def _list(graph: Any, values: Sequence[Any]) -> Any:
        node = graph.create("prim::ListConstruct", list(values), 1)
        graph.insertNode(node)
        node.output().setType(torch._C.ListType.ofInts())
        return node.output()
