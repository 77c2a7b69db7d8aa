"""What of a program is still needed when a sum is replaced by its shortcut.

The run tells which operators nobody needs any more (*dead*), with writes in place and views taken
into account. The program has more than ran: paths not taken, checks, sizes, lists. An instruction
is needed when

1. it gives a value that the program returns, or that a needed instruction reads;
2. it is an `If` or `Loop` around a needed instruction;
3. it has an effect: it sets an attribute, writes in place to what is alive, changes a list that is
   needed, raises, warns, prints.

Effects go with the branch where they are about it: a check of a size of something dead, a counter
of a layer that goes; and likewise a check inside an `If` that is only there for the branch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from engine.layers.flow import Flow
from engine.layers.reading import open_instructions, producers
from engine.torchscript.dependence import attribute_paths
from engine.torchscript.effects import lasts, speaks, written
from engine.torchscript.instructions import Block, Instruction, walk

_CONTAINERS = frozenset({"prim::ListConstruct", "prim::DictConstruct"})


def needed(
    block: Block,
    flow: Flow,
    *,
    instead: Mapping[int, int],
    dead: Collection[int],
    forgotten: Collection[str],
    closed: Collection[Block],
) -> set[Instruction]:
    """The instructions that stay.

    Args:
        block: of the program.
        flow: of its run.
        instead: values that are replaced by others.
        dead: values of operators that ran and that no output needs any more.
        forgotten: attributes of layers that go.
        closed: blocks that can never run, and count for nothing.
    """
    marker = _Marker(block, flow, instead=instead, dead=dead, forgotten=forgotten, closed=closed)
    return marker.marked()


class _Marker:
    def __init__(
        self,
        block: Block,
        flow: Flow,
        *,
        instead: Mapping[int, int],
        dead: Collection[int],
        forgotten: Collection[str],
        closed: Collection[Block],
    ) -> None:
        self._block = block
        self._closed = closed
        self._flow = flow
        self._instead = instead
        self._dead = dead
        self._made = producers(block)
        self._owner = {
            inner: instruction
            for instruction in walk(block)
            for body in instruction.blocks
            for inner in body.instructions
        }
        self._found: set[Instruction] = set()
        paths = attribute_paths(block)
        self._tainted = {value for value, path in paths.items() if path in forgotten}
        self._about_dead: set[Instruction] = set()
        self._taint(block, under=False)
        self._around_dead = {
            outer
            for instruction in walk(block)
            if self._is_dead(instruction)
            for outer in self._owners(instruction)
        }

    def marked(self) -> set[Instruction]:
        for value in self._block.outputs:
            self._mark_value(value)
        open_: list[Instruction] = []
        for instruction in open_instructions(self._block, self._closed):
            alive = bool(self._flow.ran[instruction.index]) and not self._is_dead(instruction)
            if lasts(instruction) or (written(instruction) and alive):
                self._mark(instruction)
            elif speaks(instruction) or written(instruction):
                open_.append(instruction)
        count = -1
        while count != len(self._found):
            count = len(self._found)
            for instruction in open_:
                if instruction not in self._found and self._stays(instruction):
                    self._mark(instruction)
        return self._found

    def _stays(self, instruction: Instruction) -> bool:
        if self._is_dead(instruction):
            return False
        if not speaks(instruction):
            target = self._made.get(self._read(instruction.inputs[0]))
            if target is not None and (
                target.kind in _CONTAINERS or instruction in self._about_dead
            ):
                return target in self._found
        if instruction in self._about_dead:
            return False
        place = next(
            (item for item in self._owners(instruction) if item in self._around_dead), None
        )
        return place is None or place in self._found

    def _taint(self, block: Block, *, under: bool) -> None:
        """Find what reads something dead, or stands under a condition that does."""
        for instruction in block.instructions:
            about = (
                under
                or self._is_dead(instruction)
                or any(self._read(value) in self._tainted for value in instruction.inputs)
            )
            ways = [inner for inner in instruction.blocks if inner not in self._closed]
            for inner in ways:
                self._taint(inner, under=about)
            if about:
                self._about_dead.add(instruction)
                self._tainted.update(instruction.outputs)
            for inner in ways:
                # A loop's block gives its condition first.
                for value, output in zip(
                    reversed(inner.outputs), reversed(instruction.outputs), strict=False
                ):
                    if self._read(value) in self._tainted:
                        self._tainted.add(output)

    def _mark(self, instruction: Instruction) -> None:
        waiting = [instruction]
        while waiting:
            item = waiting.pop()
            if item not in self._found:
                self._found.add(item)
                waiting.extend(self._owners(item))
                ways = [block for block in item.blocks if block not in self._closed]
                for value in (*item.inputs, *(v for block in ways for v in block.outputs)):
                    source = self._made.get(self._read(value))
                    if source is not None:
                        waiting.append(source)

    def _mark_value(self, value: int) -> None:
        source = self._made.get(self._read(value))
        if source is not None:
            self._mark(source)

    def _is_dead(self, instruction: Instruction) -> bool:
        return any(value in self._dead for value in instruction.outputs)

    def _owners(self, instruction: Instruction) -> list[Instruction]:
        """The instructions around it, from the inside out."""
        found = []
        while instruction in self._owner:
            instruction = self._owner[instruction]
            found.append(instruction)
        return found

    def _read(self, value: int) -> int:
        """The value that is read where this one was."""
        while value in self._instead:
            value = self._instead[value]
        return value
