"""Which attributes a program reads, and where.

A `prim::If` whose condition follows from constants and plain attributes alone (a scripted `if
self.use_shortcut`) always goes the same way: its other block can never run. `training` is no such
attribute, for fine-tuning changes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from engine.layers.flow import Flow
from engine.torchscript.dependence import attribute_paths
from engine.torchscript.instructions import Block, Instruction, walk
from engine.torchscript.program import Program

_PLAIN = frozenset(
    f"aten::{name}"
    for name in (
        "__not__", "__is__", "__isnot__", "__and__", "__or__", "eq", "ne", "lt", "le", "gt", "ge",
        "len", "format",
    )
) | {"prim::unchecked_cast"}  # fmt: skip
"""What is done with plain attributes; on tensors these give no bool."""


def still_read(
    program: Program,
    kept: Collection[Instruction],
    closed: Collection[Block],
    instead: Mapping[int, int],
) -> dict[str, str]:
    """Attributes that are read, with what reads them.

    Args:
        kept: instructions of forward that stay.
        closed: blocks that can never run.
        instead: values that others stand for.
    """
    paths = attribute_paths(program.block)
    used = set(_used(program.block, kept, closed))
    waiting = list(used)
    while waiting:
        source = instead.get(waiting.pop())
        if source is not None and source not in used:
            used.add(source)
            waiting.append(source)
    read = dict.fromkeys(
        (path for value, path in paths.items() if value in used),
        "something else in forward still reads its weights, or a path that the example does not "
        "take",
    )
    for method in program.other_methods():
        for path in attribute_paths(program.method_block(method)).values():
            read[path] = f"the exported method `{method}` reads its weights"
    return read


def looped(block: Block) -> set[int]:
    """Indices of the instructions in loops."""
    return {
        inner.index
        for instruction in walk(block)
        if instruction.kind == "prim::Loop"
        for body in instruction.blocks
        for inner in walk(body)
    }


def producers(block: Block) -> dict[int, Instruction]:
    """The instruction that gives each value; what a block is given has none."""
    return {value: instruction for instruction in walk(block) for value in instruction.outputs}


def settled(program: Program, flow: Flow) -> dict[Instruction, int]:
    """Every `If` that always goes the same way and can be reached, with the block it takes."""
    conditions = _Conditions(program.block, flow)
    closed = unreachable(program, flow)
    return {
        instruction: 1 - number
        for instruction in open_instructions(program.block, closed)
        for number in range(len(instruction.blocks))
        if conditions.never_runs(instruction, number)
    }


def unpacked(block: Block) -> dict[Instruction, Instruction]:
    """Tuples that are taken apart where they were put together (calls that were inlined leave
    them), by the instruction that takes them apart."""
    made = producers(block)
    found = {}
    for instruction in walk(block):
        if instruction.kind == "prim::TupleUnpack":
            source = made.get(instruction.inputs[0])
            if source is not None and source.kind == "prim::TupleConstruct":
                found[instruction] = source
    return found


def unreachable(program: Program, flow: Flow) -> set[Block]:
    """Blocks that can never run, those within them included."""
    conditions = _Conditions(program.block, flow)
    return {
        nested
        for instruction in walk(program.block)
        for number, block in enumerate(instruction.blocks)
        if conditions.never_runs(instruction, number)
        for nested in _nested(block)
    }


def open_instructions(block: Block, closed: Collection[Block]) -> Iterator[Instruction]:
    """Every instruction that can run, depth first."""
    for instruction in block.instructions:
        yield instruction
        for inner in instruction.blocks:
            if inner not in closed:
                yield from open_instructions(inner, closed)


def _nested(block: Block) -> Iterator[Block]:
    yield block
    for instruction in walk(block):
        yield from instruction.blocks


def _used(block: Block, kept: Collection[Instruction], closed: Collection[Block]) -> Iterator[int]:
    """Values that are read in a block, other than to find attributes by them."""
    yield from block.outputs
    for instruction in block.instructions:
        if instruction in kept:
            if instruction.kind != "prim::GetAttr":
                yield from instruction.inputs
            for inner in instruction.blocks:
                if inner not in closed:
                    yield from _used(inner, kept, closed)


class _Conditions:
    """Tells which conditions are the same in every run."""

    def __init__(self, block: Block, flow: Flow) -> None:
        self._taken = flow.taken
        self._made = producers(block)
        self._changing = {item.name for item in walk(block) if item.kind == "prim::SetAttr"}
        self._changing.add("training")
        self._known: dict[int, bool] = {}

    def never_runs(self, instruction: Instruction, number: int) -> bool:
        """Whether the block of this number did not run and cannot."""
        taken = self._taken.get(instruction.index)
        return bool(taken and number not in taken and self._fixed(instruction.inputs[0]))

    def _fixed(self, value: int) -> bool:
        if value not in self._known:
            self._known[value] = False  # while it is looked at
            instruction = self._made.get(value)
            self._known[value] = instruction is not None and self._follows(instruction, value)
        return self._known[value]

    def _follows(self, instruction: Instruction, value: int) -> bool:
        if instruction.kind == "prim::Constant":
            return True
        if instruction.kind == "prim::GetAttr":
            return instruction.name not in self._changing
        if instruction.kind == "prim::If":
            position = instruction.outputs.index(value)
            ran = [
                block.outputs[position]
                for number, block in enumerate(instruction.blocks)
                if number in self._taken.get(instruction.index, ())
            ]
            return bool(ran) and all(self._fixed(item) for item in (instruction.inputs[0], *ran))
        return instruction.kind in _PLAIN and all(self._fixed(item) for item in instruction.inputs)
