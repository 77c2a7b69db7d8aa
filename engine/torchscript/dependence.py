"""What of a program depends on the values of tensors, and not on their shapes alone.

Two sets of values of the graph, found by following it forward until nothing is added:

1. *data*: its content depends on what the inputs or the weights hold. Arguments of forward,
   floating weights and whatever the program writes to are data; what an operator makes of data is
   data; what a decision on data chooses is data;
2. *shaped*: a tensor or list whose shape depends on data (`nonzero`, a mask used as an index, a
   slice up to a computed number).

Reading the size of a tensor gives data only where the tensor is shaped. Its type, how many
dimensions it has and whether there is one at all depend on data only where data decides between
tensors, or where all dimensions of length one are squeezed from a shaped one. All sets may be
larger than the truth, never smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from engine.torchscript.arguments import arguments_of
from engine.torchscript.instructions import Block, Instruction, Operator, walk
from engine.torchscript.program import Program

SHAPE_READERS = frozenset(
    {
        "prim::shape", "prim::dtype", "prim::device", "prim::layout", "prim::is_cuda",
        "prim::requires_grad", "prim::is_nested", "aten::size", "aten::dim", "aten::numel",
        "aten::len", "aten::stride", "aten::storage_offset", "aten::is_contiguous",
        "aten::is_floating_point", "aten::is_complex", "aten::get_device",
        "aten::_shape_as_tensor", "aten::sym_size", "aten::__is__", "aten::__isnot__",
    }
)  # fmt: skip
_SIZES = frozenset(
    {
        "prim::shape", "aten::size", "aten::numel", "aten::len", "aten::stride",
        "aten::storage_offset", "aten::is_contiguous", "aten::_shape_as_tensor", "aten::sym_size",
    }
)  # fmt: skip
"""Those of them that ask for lengths, and not for a type or how many dimensions there are."""
_PASSING = frozenset(
    {
        "prim::unchecked_cast", "prim::unchecked_unwrap_optional", "aten::_unwrap_optional",
        "prim::TupleConstruct", "prim::TupleUnpack", "prim::TupleIndex", "prim::TupleSlice",
        "prim::ListConstruct", "prim::ListUnpack", "prim::DictConstruct",
    }
)  # fmt: skip
"""What wraps and unwraps values and changes none."""
_WRITERS = frozenset(
    f"aten::{name}"
    for name in ("append", "extend", "insert", "_set_item", "Delete", "pop", "clear", "remove",
                 "reverse")
)  # fmt: skip


@dataclass(frozen=True)
class Dependence:
    """Value numbers of a program's forward graph; see the module.

    Attributes:
        data: what depends on the content of tensors.
        shaped: what has a shape that does.
        written: paths of attributes the program writes to.
    """

    data: frozenset[int]
    shaped: frozenset[int]
    written: frozenset[str]


def data_dependence(
    program: Program,
    branches: Iterable[tuple[int, int]],
    *,
    numbers: bool,
    sizes: Iterable[int] = (),
) -> Dependence:
    """Follow the forward graph.

    Args:
        branches: decisions of a run (see `engine.tape.Tape`). One that is not made on data is
            made the same way again, so its other branch is not followed.
        numbers: whether arguments of forward that are no tensors count as data. They do where a
            constant must not take their place; a path is chosen by them as by a size.
        sizes: values whose sizes count as data too, for other sizes are to be expected.
    """
    return _Analysis(program, set(branches), numbers=numbers, sizes=frozenset(sizes)).run()


def attribute_paths(block: Block) -> dict[int, str]:
    """The dotted path of every module and attribute that a graph reads, by value number."""
    paths = {block.inputs[0]: ""}
    for instruction in walk(block):
        if instruction.kind == "prim::GetAttr" and instruction.inputs[0] in paths:
            owner = paths[instruction.inputs[0]]
            paths[instruction.outputs[0]] = ".".join(filter(None, (owner, instruction.name)))
    return paths


def written_attributes(block: Block) -> frozenset[str]:
    """Paths of attributes that a graph sets or changes in place."""
    paths = attribute_paths(block)
    origins = {value: frozenset({path}) for value, path in paths.items() if path}
    instructions = list(walk(block))
    before = -1
    while before != sum(map(len, origins.values())):
        before = sum(map(len, origins.values()))
        for instruction in instructions:
            for output, sources in _memory_of(instruction):
                found = frozenset[str]().union(*(origins.get(at, ()) for at in sources))
                if found:
                    origins[output] = origins.get(output, frozenset()) | found
    written: set[str] = set()
    for instruction in instructions:
        if instruction.kind == "prim::SetAttr" and instruction.inputs[0] in paths:
            owner = paths[instruction.inputs[0]]
            written.add(".".join(filter(None, (owner, instruction.name))))
        elif writes_first(instruction):
            written.update(origins.get(instruction.inputs[0], ()))
    return frozenset(written)


def _memory_of(instruction: Instruction) -> Iterator[tuple[int, list[int]]]:
    """Values an instruction defines, with those whose memory they may share.

    A view shares memory with its first operand; counting other results does no harm.
    """
    if instruction.kind == "prim::GetAttr" or _is_fresh(instruction):
        return
    for position, output in enumerate(instruction.outputs):
        if instruction.kind == "prim::If":
            yield output, [inner.outputs[position] for inner in instruction.blocks]
        elif instruction.kind == "prim::Loop":
            body = instruction.blocks[0]
            sources = [instruction.inputs[position + 2], body.outputs[position + 1]]
            yield output, sources
            yield body.inputs[position + 1], sources
        else:
            yield output, list(instruction.inputs[:1])


def _is_fresh(instruction: Instruction) -> bool:
    """Whether the result is sure to have memory of its own."""
    if writes_first(instruction) or instruction.operator is None:
        return False
    return instruction.operator.pointwise or instruction.kind in {
        "aten::copy", "aten::clone", "aten::list", "aten::dict",
    }  # fmt: skip


def writes_first(instruction: Instruction) -> bool:
    """Whether it changes its first operand."""
    kind = instruction.kind
    return kind in _WRITERS or (
        kind.endswith("_") and not kind.endswith("__") and kind.startswith("aten::")
    )


class _Analysis:
    def __init__(
        self,
        program: Program,
        branches: set[tuple[int, int]],
        *,
        numbers: bool,
        sizes: frozenset[int],
    ) -> None:
        self._block = program.block
        self._branches = branches
        self._paths = attribute_paths(self._block)
        self._written = written_attributes(self._block)
        self._floating = {
            name
            for name, tensor in program.attributes().items()
            if tensor.is_floating_point() or tensor.is_complex()
        }
        self._data: set[int] = {
            value
            for value, argument in zip(self._block.inputs[1:], arguments_of(program), strict=True)
            if numbers or "Tensor" in argument.type.annotation_str
        }
        self._data.update(sizes)
        self._shaped = set(sizes)
        self._ranked = set(sizes)
        self._tuples: dict[int, tuple[int, ...]] = {}

    def run(self) -> Dependence:
        before = -1
        while before != (now := len(self._data) + len(self._shaped) + len(self._ranked)):
            before = now
            self._follow(self._block, decided=False)
        return Dependence(frozenset(self._data), frozenset(self._shaped), self._written)

    def _follow(self, block: Block, *, decided: bool) -> None:
        for instruction in block.instructions:
            if instruction.kind == "prim::If":
                self._choice(instruction, decided)
            elif instruction.kind == "prim::Loop":
                self._loop(instruction, decided)
            else:
                self._step(instruction, decided)

    def _choice(self, instruction: Instruction, decided: bool) -> None:
        on_data = instruction.inputs[0] in self._data
        blocks = instruction.blocks
        if not on_data:
            ran = [
                block
                for taken, block in zip((1, 0), blocks, strict=True)
                if (instruction.index, taken) in self._branches
            ]
            blocks = tuple(ran) or blocks
        for inner in blocks:
            self._follow(inner, decided=decided or on_data)
        for position, output in enumerate(instruction.outputs):
            sources = [inner.outputs[position] for inner in blocks]
            self._flow(sources, output, decided=on_data)

    def _loop(self, instruction: Instruction, decided: bool) -> None:
        body = instruction.blocks[0]
        on_data = loop_on_data(instruction, self._data)
        for position, output in enumerate(instruction.outputs):
            sources = [instruction.inputs[position + 2], body.outputs[position + 1]]
            self._flow(sources, output, decided=on_data)
            self._flow(sources, body.inputs[position + 1], decided=False)
        self._follow(body, decided=decided or on_data)

    def _flow(self, sources: Iterable[int], target: int, *, decided: bool) -> None:
        listed = list(sources)
        if decided or self._data.intersection(listed):
            self._data.add(target)
        if decided or self._shaped.intersection(listed):
            self._shaped.add(target)
        if decided or self._ranked.intersection(listed):
            self._ranked.add(target)

    def _step(self, instruction: Instruction, decided: bool) -> None:
        kind, inputs = instruction.kind, instruction.inputs
        if kind == "prim::GetAttr":
            path = self._paths.get(instruction.outputs[0], "")
            if path in self._floating or path in self._written:
                self._data.update(instruction.outputs)
            return
        if kind == "prim::TupleConstruct":
            self._tuples[instruction.outputs[0]] = inputs
        elif kind == "prim::TupleUnpack" and inputs[0] in self._tuples:
            # A tensor and its sizes, handed on together, are not all data.
            for source, output in zip(self._tuples[inputs[0]], instruction.outputs, strict=True):
                self._flow([source], output, decided=False)
            return
        reads_data = not self._data.isdisjoint(inputs)
        reads_shaped = not self._shaped.isdisjoint(inputs)
        reads_ranked = not self._ranked.isdisjoint(inputs)
        if kind in SHAPE_READERS:
            if reads_shaped if kind in _SIZES else reads_ranked:
                self._data.update(instruction.outputs)
            return
        targets = list(instruction.outputs)
        if writes_first(instruction):
            targets.append(inputs[0])
            if decided:
                self._data.add(inputs[0])
                self._shaped.add(inputs[0])
                self._ranked.add(inputs[0])
        if reads_data:
            self._data.update(targets)
        if reads_shaped or (reads_data and self._sizes_on_data(instruction)):
            self._shaped.update(targets)
        if reads_ranked or (reads_shaped and kind == "aten::squeeze" and len(inputs) == 1):
            self._ranked.update(targets)

    def _sizes_on_data(self, instruction: Instruction) -> bool:
        """Whether an operator that reads data gives a result whose size depends on it."""
        operator = instruction.operator
        if operator is None or operator.pointwise:
            return False
        if instruction.kind in {"aten::index", "aten::_unsafe_index"}:
            return instruction.inputs[1] in self._data
        if _dynamic(operator):
            return True
        return any(value in self._data for value in numbers_of(instruction))


def loop_on_data(instruction: Instruction, data: Iterable[int]) -> bool:
    """Whether data decides how often a loop runs."""
    known = data if isinstance(data, set | frozenset) else frozenset(data)
    count, condition = instruction.inputs[:2]
    return not known.isdisjoint((count, condition, instruction.blocks[0].outputs[0]))


def numbers_of(instruction: Instruction) -> tuple[int, ...]:
    """Operands that are numbers or lists of numbers."""
    return instruction.numbers


@lru_cache(maxsize=4096)
def _dynamic(operator: Operator) -> bool:
    """Torch says the result's shape depends on data, or it is not torch's own."""
    if operator.name in _PASSING:
        return False
    if not operator.name.startswith("aten::") or operator.name == "aten::repeat_interleave":
        return True
    if operator.name == "aten::where" and len(operator.arguments) == 1:
        return True
    return torch.Tag.dynamic_output_shape in _tags(operator)


@lru_cache(maxsize=4096)
def is_random(operator: Operator) -> bool:
    """Torch says it may draw random numbers."""
    return torch.Tag.nondeterministic_seeded in _tags(operator)


def _tags(operator: Operator) -> Sequence[Any]:
    found = torch._C._get_operation_overload(operator.name, operator.overload)
    return found[2] if found is not None else ()
