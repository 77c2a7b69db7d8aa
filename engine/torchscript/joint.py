"""Several methods of a program as one.

An exported method shares its weights with forward. To find, remove and compare their channels
together, the graphs of both are put one after the other: the joint program takes the arguments of
all methods in order and gives the outputs of all. Nothing is moved: every instruction still knows
the node and the graph it came from, so an edit of the joint program edits the method itself.

Values and instructions are numbered on from one method to the next, and all methods read the
attributes of one `self`. The first method keeps its numbers: names such as `constant:7` mean the
same in forward alone and in a joint program that begins with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from engine.calling import copies
from engine.torchscript.arguments import arguments_of_method
from engine.torchscript.instructions import Block, Instruction, compile_graph, nodes_of, walk
from engine.torchscript.program import Program


class JointProgram(Program):
    """Several methods of one program; weights and graphs are those of that program.

    Attributes:
        methods: names in the order they run.
    """

    def __init__(self, program: Program, methods: Sequence[str]) -> None:
        super().__init__(program._c, program.device, program.calls)
        self.__dict__["_attributes"] = program._attributes
        self._program = program
        self.methods = tuple(methods)
        self._parts: list[Block] = []

    @property
    def alone(self) -> Program:
        """The program whose methods these are."""
        return self._program

    @property
    def module(self) -> torch.jit.ScriptModule:
        """That of the program itself."""
        return self.alone.module

    @property
    def block(self) -> Block:
        """The methods one after the other."""
        if "joint" not in self.__dict__:
            self.__dict__["joint"] = _joined(self.parts)
        joint: Block = self.__dict__["joint"]
        return joint

    @property
    def parts(self) -> list[Block]:
        """A block for each method, numbered as in `block`."""
        if not self._parts:
            first = self.methods[0] == "forward"
            self._parts = [
                self.alone.block if first else compile_graph(self.graph_of_method(self.methods[0]))
            ]
            for position in range(1, len(self.methods)):
                compiled = compile_graph(self.graph_of_method(self.methods[position]))
                self._parts.append(_after(self._parts[-1], compiled, self._parts[0].inputs[0]))
        return self._parts

    def place(self, instruction: Instruction) -> tuple[Any, Any]:
        """The node of an instruction in its method's graph, and the graph."""
        if "places" not in self.__dict__:
            graphs = [self.graph_of_method(name) for name in self.methods]
            self.__dict__["places"] = [
                (node, graph)
                for part, graph in zip(self.parts, graphs, strict=True)
                for node in nodes_of(part, graph)
            ]
        place: tuple[Any, Any] = self.__dict__["places"][instruction.index]
        return place

    def edited(self) -> None:
        """Forget the instructions, those of the program itself as well."""
        self.__dict__.pop("joint", None)
        self.__dict__.pop("places", None)
        self._parts = []
        self.alone.edited()

    def copy(self, *, share: bool = False) -> JointProgram:
        """The same methods of a copy."""
        fresh = JointProgram(self.alone.copy(share=share), self.methods)
        fresh._parts = self.parts
        fresh.__dict__["joint"] = self.block
        return fresh

    def twin(self, *, share: bool = False) -> JointProgram:
        """The same methods of a twin."""
        return JointProgram(self.alone.twin(share=share), self.methods)

    def read_back(self) -> JointProgram:
        """The same methods of the program read back."""
        return JointProgram(self.alone.read_back(), self.methods)

    def run(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Outputs of each method by the TorchScript runtime; see `Program.run`."""
        given, outputs = copies(inputs), []
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            for name in self.methods:
                taken = arguments_of_method(self, name)
                own, given = given[: len(taken)], given[len(taken) :]
                pairs = list(zip(taken, own, strict=True))
                positional = [value for item, value in pairs if not item.keyword_only]
                keywords = {item.name: value for item, value in pairs if item.keyword_only}
                outputs.append(getattr(self.module, name)(*positional, **keywords))
        return tuple(outputs)


def _joined(parts: Sequence[Block]) -> Block:
    own = parts[0].inputs[0]
    joint = Block(inputs=(own, *(value for part in parts for value in part.inputs[1:])))
    for part in parts:
        joint.instructions.extend(part.instructions)
        joint.outputs += part.outputs
        # `self` is read by the methods that follow.
        joint.release.extend(tuple(v for v in dead if v != own) for dead in part.release)
    return joint


def _after(before: Block, block: Block, own: int) -> Block:
    """A block numbered on from another one, over the same `self`."""
    values = 1 + _largest_value(before)
    indices = 1 + max((item.index for item in walk(before)), default=-1)
    return _shifted(block, values, indices, {block.inputs[0]: own})


def _largest_value(block: Block) -> int:
    inner = [*block.inputs, *block.outputs]
    for item in block.instructions:
        inner += [*item.inputs, *item.outputs, *(_largest_value(own) for own in item.blocks)]
    return max(inner, default=0)


def _shifted(block: Block, values: int, indices: int, fixed: dict[int, int]) -> Block:
    def moved(numbers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(fixed.get(number, number + values) for number in numbers)

    return Block(
        inputs=moved(block.inputs),
        instructions=[
            replace(
                item,
                index=item.index + indices,
                inputs=moved(item.inputs),
                outputs=moved(item.outputs),
                blocks=tuple(_shifted(own, values, indices, fixed) for own in item.blocks),
            )
            for item in block.instructions
        ],
        outputs=moved(block.outputs),
        release=[moved(dead) for dead in block.release],
    )
