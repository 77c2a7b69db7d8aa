"""Decisions on data: what the example did not show must stay as it was.

The tape is one path through the program. Where a size chooses the path, other inputs of the same
size take it too; what those of another size need is in `engine.coupling.untaken`. Where the
*content* of a tensor chooses, another input may take another path, on which nothing is known. So

1. whatever the branch that was not taken reads, and whatever a branch gives, stays whole: then
   that branch finds everything as it was;
2. a loop that runs until data says so carries its values around any number of times: they stay
   whole before, between and after the rounds;
3. a part whose bounds are numbers computed from data may be any part: what it is cut from stays.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.coupling.labels import Reason
from engine.coupling.size_flow import RANK, SizeFlow
from engine.coupling.sizes import is_fixed
from engine.coupling.tracker import Tracker
from engine.coupling.untaken import Untaken, adapts_rank, tuple_places
from engine.tape import Step, TensorValue, flatten
from engine.torchscript.dependence import (
    attribute_paths,
    data_dependence,
    loop_on_data,
    numbers_of,
)
from engine.torchscript.instructions import Block, Instruction, walk
from engine.torchscript.program import Program

_BRANCH = "data decides whether another branch runs, which the example does not show"
_BRANCH_BY_SIZE = (
    "a size decides whether another branch of an exported method runs, and its inputs were found "
    "by their type alone (call it in forward)"
)
_LOOP = "carried around a loop that runs until data says so"
_PART = "its bounds are computed from data"
_PARTS = frozenset(
    f"aten::{name}"
    for name in ("slice", "narrow", "select", "split", "split_with_sizes", "chunk", "roll",
                 "tensor_split", "index_select", "unflatten", "diagonal", "slice_scatter",
                 "select_scatter")
)  # fmt: skip


def freeze_decisions(
    tracker: Tracker, program: Program, flow: SizeFlow, *, sizes: Iterable[int] = ()
) -> None:
    """Freeze what depends on a decision that another input may take otherwise.

    Args:
        sizes: values of the program whose sizes decide as data does.
    """
    if tracker.tape.branches:
        _freeze_paths(tracker, program, flow, frozenset(sizes))
    fixed = program.block.fixed
    parts = [
        step
        for step in tracker.tape.steps
        if step.kind in _PARTS and not fixed.issuperset(step.instruction.inputs[1:])
    ]
    if parts:
        computed = data_dependence(program, tracker.tape.branches, numbers=True).data
        for step in parts:
            if not computed.isdisjoint(numbers_of(step.instruction)):
                _freeze_part(tracker, step)


def _freeze_paths(
    tracker: Tracker, program: Program, flow: SizeFlow, sizes: frozenset[int]
) -> None:
    dependence = data_dependence(program, tracker.tape.branches, numbers=False, sizes=sizes)
    known = dependence
    if sizes:
        known = data_dependence(program, tracker.tape.branches, numbers=False)
    values = _Values(tracker, program)
    untaken = values.untaken(program)

    def varies(asked: Iterable[int]) -> bool:
        return not all(is_fixed(tracker, flow, read) for read in flow.behind(asked))

    executed: dict[int, list[int]] = {}
    for index, taken in tracker.tape.branches:
        executed.setdefault(index, []).append(taken)
    for instruction in walk(program.block):
        taken_ways = executed.get(instruction.index)
        if taken_ways is None:
            continue
        if instruction.kind == "prim::If":
            others = [
                block
                for number, block in enumerate(instruction.blocks)
                # Taken in every round or in none; a mixture may come in another order.
                if set(taken_ways) != {1 - number} and not _raises(block)
            ]
            if others and instruction.inputs[0] in dependence.data:
                by_data = instruction.inputs[0] in known.data
                text = _BRANCH if by_data else _BRANCH_BY_SIZE
                values.freeze(instruction, text, instruction.outputs, others)
            elif others and varies(instruction.inputs[:1]):
                on_rank = all(read[1] == RANK for read in flow.behind(instruction.inputs[:1]))
                for block in others:
                    if not (on_rank and adapts_rank(block, untaken.taken_out)):
                        untaken.branch(instruction, block)
        elif instruction.kind == "prim::Loop" and loop_on_data(instruction, dependence.data):
            body = instruction.blocks[0]
            ran = any(inner.index in values.ran for inner in walk(body))
            carried = [*instruction.inputs[2:], *body.inputs[1:], *body.outputs[1:]]
            values.freeze(
                instruction, _LOOP, [*carried, *instruction.outputs], [] if ran else [body]
            )
        elif varies([*instruction.inputs[:2], instruction.blocks[0].outputs[0]]):
            untaken.loop(instruction, ran=max(taken_ways) > 0)


def _freeze_part(tracker: Tracker, step: Step) -> None:
    value = step.arguments[0]
    if not isinstance(value, TensorValue) or not value.shape:
        return
    dim = step.argument("dim")
    dims = range(len(value.shape)) if dim is None else [int(dim) % len(value.shape)]
    for position in dims:
        tracker.freeze(tracker.merged_labels(value)[position], step, _PART)


def _raises(block: Block) -> bool:
    """Nothing after it can be wrong."""
    return any(instruction.kind == "prim::RaiseException" for instruction in block.instructions)


class _Values:
    """Finds the tensors of the tape behind the values of the graph."""

    def __init__(self, tracker: Tracker, program: Program) -> None:
        self._tracker = tracker
        self._paths = attribute_paths(program.block)
        self._names = {
            alias: name for name, aliases in tracker.tape.aliases.items() for alias in aliases
        }
        self.ran = {step.instruction.index for step in tracker.tape.steps}
        self._seen: dict[int, list[TensorValue]] = {}
        for step in tracker.tape.steps:
            for operand, given in zip(step.instruction.inputs, step.arguments, strict=True):
                self._seen.setdefault(operand, []).extend(flatten([given]))
            for output, made in zip(step.instruction.outputs, step.outputs, strict=False):
                self._seen.setdefault(output, []).extend(flatten([made]))
        self._sources: dict[int, list[int]] = {}
        for instruction in walk(program.block):
            self._note(instruction)

    def _note(self, instruction: Instruction) -> None:
        for position, output in enumerate(instruction.outputs):
            if instruction.kind == "prim::If":
                sources = [block.outputs[position] for block in instruction.blocks]
            elif instruction.kind == "prim::Loop":
                body = instruction.blocks[0]
                sources = [instruction.inputs[position + 2], body.outputs[position + 1]]
                self._sources[body.inputs[position + 1]] = sources
            else:
                sources = list(instruction.inputs)
            self._sources[output] = sources

    def untaken(self, program: Program) -> Untaken:
        """Branches that another size takes, over the same values."""
        constants = {
            item.outputs[0]: item.constant
            for item in walk(program.block)
            if item.kind == "prim::Constant"
        }
        return Untaken(
            self._tracker,
            behind=self._behind,
            constants=constants,
            taken_out=tuple_places(program.block, constants),
            lists={
                item.outputs[0]: item.inputs
                for item in walk(program.block)
                if item.kind == "prim::ListConstruct"
            },
            freeze=self.freeze,
        )

    def freeze(
        self, decision: Instruction, text: str, given: Iterable[int], blocks: Iterable[Block]
    ) -> None:
        """Keep values, and all that blocks read, whole."""
        wanted = list(given)
        names: set[str] = set()
        for block in blocks:
            for instruction in walk(block):
                wanted.extend(instruction.inputs)
                path = self._paths.get(instruction.outputs[0]) if instruction.outputs else None
                if instruction.kind == "prim::GetAttr" and path in self._names:
                    names.add(self._names[str(path)])
            wanted.extend(block.outputs)
        found = {name: self._tracker.tape.tensors[name] for name in names}
        reason = Reason(decision.kind, text)
        for value in [*found.values(), *self._behind(wanted)]:
            for labels in self._tracker.merged_labels(value):
                if labels is not None:
                    self._tracker.space.freeze(labels, reason)

    def _behind(self, wanted: Iterable[int]) -> list[TensorValue]:
        """Tensors that ran, at the values themselves or nearest before them."""
        open_ones, known, found = list(wanted), set[int](), dict[int, TensorValue]()
        while open_ones:
            value = open_ones.pop()
            if value in known:
                continue
            known.add(value)
            tensors = self._seen.get(value)
            if tensors:
                found.update((tensor.number, tensor) for tensor in tensors)
            elif value in self._paths:
                name = self._names.get(self._paths[value])
                if name is not None:
                    tensor = self._tracker.tape.tensors[name]
                    found[tensor.number] = tensor
            else:
                open_ones.extend(self._sources.get(value, []))
        return list(found.values())
