"""Which sizes each number of a program is computed from.

Followed forward through the graph until nothing is added. A *read* is one dimension of one tensor
of the tape whose length was asked for. Numbers hand their reads on through arithmetic, lists,
tuples, branches and loops; so do tensors that hold numbers (a traced program keeps every size in
one). A tensor that depends on data takes no reads: what a number does to data is for the operator
to say (see `engine.coupling.sizes`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise

from engine.tape import Step, Tape, TensorValue
from engine.torchscript.dependence import data_dependence, writes_first
from engine.torchscript.instructions import Block, Instruction, walk
from engine.torchscript.program import Program

Read = tuple[int, int]
"""Number of a tensor of the tape, and one of its dimensions, or `RANK`."""
Reads = frozenset[Read]

RANK = -1
_NOTHING: Reads = frozenset()
_OF_ALL = frozenset(
    {"aten::numel", "aten::stride", "aten::storage_offset", "aten::is_contiguous",
     "aten::_shape_as_tensor", "prim::shape"}
)  # fmt: skip
_OF_ONE = frozenset({"aten::size", "aten::len", "aten::sym_size"})
_READERS = _OF_ALL | _OF_ONE | {"aten::dim"}
_FILLED = frozenset(
    f"aten::{name}"
    for name in ("tensor", "as_tensor", "scalar_tensor", "full", "new_full", "full_like", "arange",
                 "linspace", "fill", "fill_")
) | {"prim::NumToTensor"}  # fmt: skip
"""Operators that make a tensor hold a number."""


class SizeFlow:
    """The reads behind every value of the forward graph.

    Attributes:
        steps: the steps of the tape, by index of their instruction.
        tensors: the tensors of the tape that reads name, by number.
        reads: the reads behind each value that has any.
    """

    def __init__(self, program: Program, tape: Tape) -> None:
        self._program, self._tape = program, tape
        self.steps: dict[int, list[Step]] = {}
        for step in tape.steps:
            self.steps.setdefault(step.instruction.index, []).append(step)
        self.tensors: dict[int, TensorValue] = {}
        self.reads: dict[int, Reads] = {}
        self._lists: dict[int, list[Reads]] = {}
        self._constants = {
            instruction.outputs[0]: instruction.constant
            for instruction in walk(program.block)
            if instruction.kind == "prim::Constant"
        }
        if not any(step.kind in _READERS for step in tape.steps):
            return
        before = -1
        while before != (now := sum(map(len, self.reads.values()))):
            before = now
            self._follow(program.block)

    @cached_property
    def data(self) -> frozenset[int]:
        """Values that depend on the content of tensors."""
        return data_dependence(self._program, self._tape.branches, numbers=False).data

    def behind(self, values: Iterable[int]) -> Reads:
        """The reads that any of these values is computed from."""
        return _NOTHING.union(*(self.reads.get(value, _NOTHING) for value in values))

    def _follow(self, block: Block) -> None:
        for instruction in block.instructions:
            for inner in instruction.blocks:
                self._follow(inner)
            if instruction.kind == "prim::If":
                for position, output in enumerate(instruction.outputs):
                    sources = [inner.outputs[position] for inner in instruction.blocks]
                    # What a decision makes of data is data; of numbers, a number. What is chosen
                    # by how many dimensions there are need not differ in what it is asked for.
                    asked = [] if output in self.data else [instruction.inputs[0]]
                    sized = {read for read in self.behind(asked) if read[1] != RANK}
                    self._add(output, self.behind(sources) | sized)
            elif instruction.kind == "prim::Loop":
                self._loop(instruction)
            else:
                self._step(instruction)

    def _loop(self, instruction: Instruction) -> None:
        body = instruction.blocks[0]
        for position, output in enumerate(instruction.outputs):
            sources = [instruction.inputs[position + 2], body.outputs[position + 1]]
            asked = [] if output in self.data else instruction.inputs[:2]
            self._add(output, self.behind([*asked, *sources]))
            self._add(body.inputs[position + 1], self.behind(sources))

    def _step(self, instruction: Instruction) -> None:
        kind, inputs, outputs = instruction.kind, instruction.inputs, instruction.outputs
        if kind in {"aten::__is__", "aten::__isnot__"}:
            return  # whether there is a value says no size
        if kind in _READERS:
            self._read(instruction)
        elif kind == "prim::ListUnpack" and inputs[0] in self._lists:
            for output, reads in zip(outputs, self._lists[inputs[0]], strict=False):
                self._add(output, reads)
        elif kind == "aten::__getitem__" and inputs[0] in self._lists:
            self._add(outputs[0], self._item(inputs[0], self._constants.get(inputs[1])))
        elif kind == "aten::slice" and inputs[0] in self._lists:
            start, end, stride = (self._constants.get(operand) for operand in inputs[1:4])
            self._lists[outputs[0]] = self._lists[inputs[0]][start:end:stride]
            self._add(outputs[0], _NOTHING.union(*self._lists[outputs[0]]))
        else:
            if kind == "prim::ListConstruct" and not self.data.intersection(inputs):
                self._lists[outputs[0]] = [self.behind([operand]) for operand in inputs]
            sources = self.behind(self._passing(instruction))
            for output in outputs:
                if output not in self.data or kind.startswith("prim::"):
                    self._add(output, sources)
            if writes_first(instruction) and inputs[0] not in self.data:
                self._lists.pop(inputs[0], None)
                self._add(inputs[0], sources)

    def _item(self, listed: int, index: object) -> Reads:
        items = self._lists[listed]
        if isinstance(index, int) and -len(items) <= index < len(items):
            return items[index]
        return self.behind([listed])

    def _passing(self, instruction: Instruction) -> list[int]:
        """Operands whose reads the result takes: not the sizes it is made with."""
        operator = instruction.operator
        if operator is None or operator.pointwise or instruction.kind in _FILLED:
            shapes = {"size"}
            return [
                operand
                for operand, name in zip(
                    instruction.inputs,
                    operator.arguments if operator else [""] * len(instruction.inputs),
                    strict=True,
                )
                if name not in shapes
            ]
        if instruction.index in self.steps:
            numbers = set(instruction.numbers)
            return [operand for operand in instruction.inputs if operand not in numbers]
        return list(instruction.inputs)

    def _read(self, instruction: Instruction) -> None:
        found: list[list[Read]] = []
        for step in self.steps.get(instruction.index, []):
            value = step.arguments[0]
            if not isinstance(value, TensorValue):
                continue
            self.tensors[value.number] = value
            dims = [(value.number, dim) for dim in range(len(value.shape))]
            if step.kind == "aten::dim":
                dims = [(value.number, RANK)]
            dim = 0 if step.kind == "aten::len" else step.argument("dim")
            if step.kind in _OF_ONE and isinstance(dim, int):
                dims = [dims[dim]]
            elif step.kind == "aten::size":
                found.append(dims)
            self._add(instruction.outputs[0], frozenset(dims))
        if found and all(len(one) == len(other) for one, other in pairwise(found)):
            columns = zip(*found, strict=True)
            self._lists[instruction.outputs[0]] = [frozenset(column) for column in columns]

    def _add(self, value: int, reads: Reads) -> None:
        if reads:
            self.reads[value] = self.reads.get(value, _NOTHING) | reads


def single_number(step: Step, position: int) -> bool:
    """Whether an operand is one number, so that a constant can stand for it."""
    value = step.arguments[position]
    if isinstance(value, TensorValue):
        return not value.shape and value.value is not None and value.name is None
    return isinstance(value, int | float)
