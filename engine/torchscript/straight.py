"""A program without the decisions that no input of its shape can change.

Exporters translate operators, and stumble over the control flow that scripting leaves around them:
whether an argument is None, how many dimensions a tensor has, a loop over a list of layers. The
program is run on example inputs, and what they show is settled:

1. an `If` is replaced by the block it takes where its condition is made of constants, attributes,
   plain arguments, types, numbers of dimensions and sizes, and every one of those is the same for
   every example. Examples differ in the number of samples, so a decision on that number stays;
2. an `If` whose other block only raises is replaced by the block it takes: what the program would
   refuse, the result computes;
3. a loop that takes the same number of rounds by the same rule is unrolled;
4. lists and dictionaries of known length that are taken apart again are bypassed;
5. `unflatten` is written as a reshape to all sizes, for torch's ONNX exporter loses count of the
   dimensions behind it.

What is decided by the values of tensors stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.torchscript.dependence import SHAPE_READERS, attribute_paths, written_attributes
from engine.torchscript.edit import GraphEditor
from engine.torchscript.instructions import Block, Instruction, walk
from engine.torchscript.interpreter import Interpreter, PlainVisitor
from engine.torchscript.program import Program

_PASSES = 20
"""Loops within loops are unrolled from the outside in, one level at a time."""
_MOST_ROUNDS = 256
# Some of them are not in the stubs of torch.
_PASSES_OF_TORCH: Any = torch._C


def straighten(program: Program, cases: Sequence[Sequence[Any]]) -> Program:
    """A copy over the same weights with everything settled that the module's rules allow.

    Args:
        program: to copy; its graph is not changed.
        cases: arguments of forward, each with another number of samples where it takes one.
    """
    fresh = program.copy(share=True)
    _tidy(fresh)
    for _ in range(_PASSES):
        if not _settle(fresh, _observe(fresh, cases)):
            break
        # Instructions are read from a graph that has changed.
        _tidy(fresh)
    _spell_out(fresh, _observe(fresh, cases))
    return fresh


class _Observed(Interpreter):
    """What every instruction gave, in the order in which it ran."""

    def __init__(self, program: Program) -> None:
        super().__init__(program, PlainVisitor())
        self.given: dict[int, list[list[Any]]] = {}
        self.asked: dict[int, list[Any]] = {}

    def _step(self, instruction: Instruction, env: dict[int, Any], arguments: list[Any]) -> None:
        if instruction.blocks:
            self.asked.setdefault(instruction.index, []).append(arguments[:2])
        super()._step(instruction, env, arguments)
        if instruction.outputs:
            shown = [_shown(env[value]) for value in instruction.outputs]
            self.given.setdefault(instruction.index, []).append(shown)


def _shown(value: Any) -> Any:
    """Of tensors their type and number of dimensions; numbers, flags and their lists whole."""
    if isinstance(value, torch.Tensor):
        return value.dim(), value.dtype
    if isinstance(value, list) and all(isinstance(item, int) for item in value):
        return tuple(value)
    return value if isinstance(value, bool | int | float | str | torch.dtype | None) else "..."


def _observe(program: Program, cases: Sequence[Sequence[Any]]) -> list[_Observed]:
    found = []
    for inputs in cases:
        observed = _Observed(program)
        with torch.no_grad():
            observed.run(inputs)
        found.append(observed)
    return found


def _settle(program: Program, observed: Sequence[_Observed]) -> bool:
    """Edit the graph; tells whether anything changed."""
    rules = _Rules(program, observed)
    editor = GraphEditor(program)
    chosen: list[tuple[Instruction, int]] = []
    unrolled = False
    for instruction in _outside_loops(program.block):
        if instruction.kind == "prim::If":
            taken = rules.taken(instruction)
            if taken is not None:
                chosen.append((instruction, taken))
        else:
            rounds = rules.rounds(instruction)
            if rounds is not None:
                editor.replace_operand(instruction, 0, rounds)
                unrolled = True
    gone: set[int] = set()
    for instruction, taken in chosen:
        if instruction.index not in gone:
            gone.update(inner.index for inner in walk(instruction.blocks[1 - taken]))
            editor.settle(instruction, taken)
    if not unrolled:
        return bool(chosen)
    before = _loops(program.graph)
    # The pass comes back to where edits were made, which may be a loop that is gone by then.
    program.graph.setInsertPoint(program.graph.return_node())
    _PASSES_OF_TORCH._jit_pass_constant_loop_unrolling(program.graph)
    return bool(chosen) or _loops(program.graph) != before


def _loops(graph: Any) -> int:
    return len(graph.findAllNodes("prim::Loop", recurse=True))


def _outside_loops(block: Block) -> list[Instruction]:
    """Every `If`, and every loop, but what is in loops: that is settled once they are unrolled."""
    found = []
    for instruction in block.instructions:
        if instruction.kind == "prim::Loop":
            found.append(instruction)
        elif instruction.kind == "prim::If":
            found.append(instruction)
            for inner in instruction.blocks:
                found += _outside_loops(inner)
    return found


class _Rules:
    """What may be settled."""

    def __init__(self, program: Program, observed: Sequence[_Observed]) -> None:
        block = program.block
        self._observed = observed
        self._arguments = frozenset(block.inputs)
        self._producers = {
            value: instruction for instruction in walk(block) for value in instruction.outputs
        }
        paths, written = attribute_paths(block), written_attributes(block)
        self._written = {value for value, path in paths.items() if path in written}

    def taken(self, instruction: Instruction) -> int | None:
        """The block that an `If` always takes, where it may be settled."""
        asked = [observed.asked.get(instruction.index, []) for observed in self._observed]
        decisions = {bool(arguments[0]) for each in asked for arguments in each}
        if len(decisions) != 1:
            return None
        taken = 0 if decisions.pop() else 1
        refuses = any(
            inner.kind == "prim::RaiseException"
            for inner in instruction.blocks[1 - taken].instructions
        )
        return taken if refuses or self._fixed(instruction.inputs[0]) else None

    def rounds(self, instruction: Instruction) -> int | None:
        """The rounds that a loop always takes, where it may be unrolled."""
        asked = [observed.asked.get(instruction.index, []) for observed in self._observed]
        counts = {tuple(arguments) for each in asked for arguments in each}
        if len(counts) != 1:
            return None
        ((count, condition),) = counts
        goes_on = self._producers.get(instruction.blocks[0].outputs[0])
        plain = goes_on is not None and goes_on.constant is True and condition is True
        if not plain or not 0 <= count <= _MOST_ROUNDS:
            return None
        return count if self._fixed(instruction.inputs[0]) else None

    def _fixed(self, value: int) -> bool:
        """Whether it is made only of what is the same in every example; see the module."""
        waiting, seen = [value], set[int]()
        while waiting:
            value = waiting.pop()
            if value in seen or value in self._arguments:
                continue
            seen.add(value)
            made = self._producers.get(value)
            if made is None or value in self._written:
                return False  # the number of a round, what a round left, what the program writes
            if made.kind in {"prim::Constant", "prim::GetAttr"}:
                continue
            if made.kind in SHAPE_READERS:
                if not self._alike(made):
                    return False
            elif made.kind == "prim::If":
                waiting.append(made.inputs[0])
                at = made.outputs.index(value)
                waiting += [inner.outputs[at] for inner in made.blocks]
            elif made.blocks or made.tensor_inputs:
                return False
            else:
                waiting += made.inputs
        return True

    def _alike(self, reader: Instruction) -> bool:
        given = [observed.given.get(reader.index) for observed in self._observed]
        return all(each == given[0] for each in given)


def _tidy(program: Program) -> None:
    """Bypass lists and dictionaries that are taken apart again, and drop what nothing reads."""
    graph = program.graph
    for _ in range(2):
        torch._C._jit_pass_peephole(graph, True)
        _PASSES_OF_TORCH._jit_pass_peephole_list_idioms(graph, refine_list_len=True)
        torch._C._jit_pass_constant_propagation(graph)
        torch._C._jit_pass_dce(graph)
    program.edited()


def _spell_out(program: Program, observed: Sequence[_Observed]) -> None:
    """Write every `unflatten` that always gives as many dimensions as a reshape."""
    for instruction in walk(program.block):
        if instruction.kind != "aten::unflatten":
            continue
        made = {each[0] for one in observed for each in one.given.get(instruction.index, [])}
        kind = instruction.node.inputsAt(2).node().kind()
        dimension = instruction.node.inputsAt(1).toIValue()
        known = kind in {"prim::ListConstruct", "prim::Constant"} and dimension is not None
        if len(made) == 1 and known:
            ((rank, _),) = made
            _reshape(*program.place(instruction), rank)
    program.edited()


def _size(graph: Any, source: Any, at: int) -> Any:
    size = graph.create("aten::size", [source, graph.insertConstant(at)], 1)
    size.output().setType(torch._C.IntType.get())
    graph.insertNode(size)
    return size.output()


def _reshape(node: Any, graph: Any, rank: int) -> None:
    """`x.unflatten(d, [a, b])` as `x.reshape([x.size(0), .., a, b, .., x.size(-1)])`."""
    graph.setInsertPoint(node)
    source, listed = node.inputsAt(0), node.inputsAt(2)
    baked = listed.toIValue()
    parts = (
        list(listed.node().inputs())
        if baked is None
        else [graph.insertConstant(size) for size in baked]
    )
    before = rank - len(parts) + 1
    dimension = node.inputsAt(1).toIValue() % before
    sizes = []
    for at in range(before):
        if at == dimension:
            sizes += parts
            continue
        sizes.append(_size(graph, source, at))
    listed = graph.create("prim::ListConstruct", sizes, 1)
    listed.output().setType(torch._C.ListType.ofInts())
    graph.insertNode(listed)
    reshaped = graph.create("aten::reshape", [source, listed.output()], 1)
    reshaped.output().setType(node.output().type())
    graph.insertNode(reshaped)
    node.output().replaceAllUsesWith(reshaped.output())
    node.destroy()
