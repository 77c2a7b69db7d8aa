"""Which attributes a program reads, and where.

A `prim::If` whose condition follows from constants and plain attributes alone (a scripted `if
self.use_shortcut`) always goes the same way: its other block can never run. `training` is no such
attribute, for fine-tuning changes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from engine.layers.flow import Flow
from engine.torchscript.instructions import Block, Instruction, walk
from engine.torchscript.program import Program

_PLAIN = frozenset(
    f"aten::{name}"
    for name in (
        "__not__", "__is__", "__isnot__", "__and__", "__or__", "eq", "ne", "lt", "le", "gt", "ge",
    )
) | {"prim::unchecked_cast"}  # fmt: skip
"""What plain attributes are compared with; on tensors these give no bool."""


def still_read(
    program: Program, kept: Collection[Instruction], closed: Collection[Block]
) -> dict[str, str]:
    """Attributes that are read, with what reads them.

    Args:
        kept: instructions of forward that stay.
        closed: blocks that can never run.
    """
    paths = attribute_paths(program.block)
    read = dict.fromkeys(
        (paths[value] for value in _used(program.block, kept, closed) if value in paths),
        "something else in forward still reads its weights, or a path that the example does not "
        "take",
    )
    for method in program.other_methods():
        for path in attribute_paths(program.method_block(method)).values():
            read[path] = f"the exported method `{method}` reads its weights"
    return read


def attribute_paths(block: Block) -> dict[int, str]:
    """The dotted path of every attribute that a block reads, by value."""
    paths: dict[int, str] = {block.inputs[0]: ""}
    for instruction in walk(block):
        if instruction.kind == "prim::GetAttr" and instruction.inputs[0] in paths:
            owner, name = paths[instruction.inputs[0]], str(instruction.name)
            paths[instruction.outputs[0]] = f"{owner}.{name}" if owner else name
    return paths


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


def unreachable(program: Program, flow: Flow) -> set[Block]:
    """Blocks that can never run, those within them included."""
    made = producers(program.block)
    written = {item.name for item in walk(program.block) if item.kind == "prim::SetAttr"}
    closed: set[Block] = set()
    for instruction in walk(program.block):
        taken = flow.taken.get(instruction.index)
        if taken and _fixed(instruction.inputs[0], made, written | {"training"}):
            for number, block in enumerate(instruction.blocks):
                if number not in taken:
                    closed.update(_nested(block))
    return closed


def _nested(block: Block) -> Iterator[Block]:
    yield block
    for instruction in walk(block):
        yield from instruction.blocks


def _used(
    block: Block, kept: Collection[Instruction], closed: Collection[Block]
) -> Iterator[int]:
    """Values that are read in a block, other than to find attributes by them."""
    yield from block.outputs
    for instruction in block.instructions:
        if instruction in kept:
            if instruction.kind != "prim::GetAttr":
                yield from instruction.inputs
            for inner in instruction.blocks:
                if inner not in closed:
                    yield from _used(inner, kept, closed)


def _fixed(value: int, made: Mapping[int, Instruction], written: set[str | None]) -> bool:
    """Whether a value is the same in every run."""
    instruction = made.get(value)
    if instruction is None:
        return False
    if instruction.kind == "prim::Constant":
        return True
    if instruction.kind == "prim::GetAttr":
        return instruction.name not in written
    if instruction.kind == "prim::If":
        position = instruction.outputs.index(value)
        outputs = [block.outputs[position] for block in instruction.blocks]
        return all(_fixed(item, made, written) for item in (*instruction.inputs, *outputs))
    return instruction.kind in _PLAIN and all(
        _fixed(item, made, written) for item in instruction.inputs
    )
