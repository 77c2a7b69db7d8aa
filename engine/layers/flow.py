"""The data flow of one run: which contents were computed from which.

A tensor that is changed in place has several contents one after the other. Every content is a
node, with the contents it was computed from as parents:

1. a tensor that an operator gives is a new content of the contents it read;
2. a write in place gives the memory a new content, of what was there and what the operator read;
   from then on every tensor on that memory has it. A write through a view counts for the whole
   memory, which may find a dependence too many and never one too few;
3. parameters, buffers, constants and the arguments of forward are contents without parents.

Nodes are numbered in the order of the run, so parents come before their children.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from engine.structure import map_tensors, tensors_in
from engine.tape import canonical_names, shapes_first, to_meta
from engine.torchscript.effects import written
from engine.torchscript.instructions import Instruction
from engine.torchscript.interpreter import Interpreter, run_operator
from engine.torchscript.meta import run_on_meta
from engine.torchscript.program import Program

_RETURNS_ITS_INPUT = frozenset(
    {"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout"}
)
"""On the meta device these give a tensor of its own, in evaluation mode the one they take."""


@dataclass(frozen=True)
class Content:
    """One content of a tensor."""

    node: int
    memory: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class FlowStep:
    """An operator that ran, with what it read, by operand, and what it gave.

    Attributes:
        reads: contents of all tensors among the operands, lists flattened.
        operands: each operand; contents instead of tensors, None instead of lists.
        gives: contents of its outputs.
        writes: memories it changed.
    """

    instruction: Instruction
    reads: tuple[Content, ...]
    operands: tuple[Any, ...]
    gives: tuple[Content, ...]
    writes: frozenset[int]

    @property
    def memories(self) -> set[int]:
        """Every memory it reads."""
        return {content.memory for content in self.reads}


@dataclass(eq=False)
class Flow:
    """The whole run.

    Attributes:
        steps: operators in order.
        parents: of every node.
        fed: for every node, whether it depends on an argument of forward.
        names: canonical name of the nodes that are parameters, buffers or constants.
        outputs: what forward gave, and what it left in its own parameters and buffers.
        lasting: memories of arguments, parameters, buffers and constants.
        views: nodes that show the whole of another one in the same memory, and which.
        taken: blocks of each `prim::If` that ran, by instruction.
        ran: how often each instruction ran.
    """

    steps: list[FlowStep] = field(default_factory=list)
    parents: list[tuple[int, ...]] = field(default_factory=list)
    fed: list[bool] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    outputs: list[Content] = field(default_factory=list)
    lasting: set[int] = field(default_factory=set)
    views: dict[int, int] = field(default_factory=dict)
    taken: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    ran: Counter[int] = field(default_factory=Counter)

    def ancestors(self, nodes: Iterable[int], instead: Mapping[int, int] | None = None) -> set[int]:
        """The nodes themselves and all they were computed from.

        Args:
            instead: nodes that are taken to be another one.
        """
        instead = instead or {}
        found: set[int] = set()
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting.extend((instead[node],) if node in instead else self.parents[node])
        return found

    def needed(self, instead: Mapping[int, int] | None = None) -> set[int]:
        """All nodes the outputs were computed from."""
        return self.ancestors((content.node for content in self.outputs), instead)

    def dead_values(self, before: set[int], after: set[int]) -> set[int]:
        """Values of operators that were needed before and are not after; nodes are given."""
        dead: set[int] = set()
        alive: set[int] = set()
        for step in self.steps:
            nodes = {content.node for content in step.gives}
            gone = not nodes & after and bool(nodes & before)
            (dead if gone else alive).update(step.instruction.outputs)
        return dead - alive

    def comes_from(self, node: int, source: int) -> bool:
        """Whether `source` is an ancestor of `node`."""
        waiting, seen = [node], {node}
        while waiting:
            for parent in self.parents[waiting.pop()]:
                if parent == source:
                    return True
                if parent > source and parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)
        return False

    def named(self, nodes: Iterable[int]) -> set[str]:
        """Names of the parameters, buffers and constants among these nodes."""
        return {self.names[node] for node in nodes if node in self.names}


def record_flow(program: Program, inputs: Sequence[Any]) -> Flow:
    """Run the program on example inputs and follow its data.

    Raises:
        ModelRaised: the model refuses these inputs.
        UnsupportedOperator: an instruction cannot be run.
    """
    return shapes_first(lambda meta: _record(program, inputs, meta=meta))


@torch.no_grad()
def _record(program: Program, inputs: Sequence[Any], *, meta: bool) -> Flow:
    recorder = _Recorder(canonical_names(program), meta=meta)
    outputs = Interpreter(program, recorder).run(
        [map_tensors(value, recorder.argument) for value in inputs]
    )
    recorder.finish(outputs)
    return recorder.flow


@dataclass(frozen=True)
class _Known:
    """A tensor of the run: its content when it was made, and how often its memory had changed."""

    content: Content
    version: int


class _Recorder:
    def __init__(self, canonical: Mapping[str, str], *, meta: bool) -> None:
        self.flow = Flow()
        self._canonical = canonical
        self._meta = meta
        self._run = run_on_meta if meta else run_operator
        self._known: Any = WeakIdKeyDictionary()
        self._named: dict[str, torch.Tensor] = {}
        self._written: dict[int, list[int]] = defaultdict(list)

    def argument(self, tensor: torch.Tensor) -> torch.Tensor:
        placed = to_meta(tensor) if self._meta else tensor.clone()
        self.flow.lasting.add(self._made(placed, (), fed=True).memory)
        return placed

    def tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        canonical = self._canonical.get(name, name)
        if canonical not in self._named:
            # Scalars stay real: control flow and shape arithmetic read them.
            placed = to_meta(tensor) if self._meta and tensor.dim() else tensor.detach().clone()
            content = self._made(placed, ())
            self.flow.names[content.node] = canonical
            self.flow.lasting.add(content.memory)
            self._named[canonical] = placed
        return self._named[canonical]

    def operator(self, instruction: Instruction, arguments: list[Any]) -> Any:
        operands = tuple(
            None if isinstance(value, list | tuple | dict) else map_tensors(value, self._content)
            for value in arguments
        )
        read = tensors_in(arguments)
        reads = tuple(self._content(tensor) for tensor in read)
        sources = {_memory(tensor): own for tensor, own in zip(read, reads, strict=True)}
        outputs = self._run(instruction, arguments)
        parents = tuple(dict.fromkeys(content.node for content in reads))
        writes = {
            self._content(tensor).memory
            for position in written(instruction)
            for tensor in tensors_in(arguments[position])
        }
        for memory in sorted(writes):
            self._written[memory].append(self._node(parents))
            parents = (*parents, self._written[memory][-1])
        gives = []
        for tensor in tensors_in(list(outputs) if isinstance(outputs, tuple) else outputs):
            if self._known.get(tensor) is None:
                same = instruction.kind in _RETURNS_ITS_INPUT
                source = reads[0] if same else sources.get(_memory(tensor))
                made = self._made(tensor, parents, memory=None if source is None else source.memory)
                if source is not None and prod(source.shape) == tensor.numel():
                    self.flow.views[made.node] = source.node
            gives.append(self._content(tensor))
        self.flow.ran[instruction.index] += 1
        self.flow.steps.append(
            FlowStep(instruction, reads, operands, tuple(gives), frozenset(writes))
        )
        return outputs

    def branch(self, instruction: Instruction, condition: bool) -> bool:
        self.flow.taken[instruction.index].add(0 if condition else 1)
        return condition

    def iterations(self, instruction: Instruction, count: int) -> int:  # noqa: ARG002
        return count

    def finish(self, outputs: Any) -> None:
        """The outputs, and buffers that the program changed."""
        left = [
            tensor
            for tensor in self._named.values()
            if self._written[self._known[tensor].content.memory]
        ]
        self.flow.outputs = [self._content(tensor) for tensor in [*tensors_in(outputs), *left]]

    def _content(self, tensor: torch.Tensor) -> Content:
        known: _Known | None = self._known.get(tensor)
        if known is None:  # made by a container operator, out of a number
            return self._made(tensor, ())
        changes = self._written[known.content.memory]
        if len(changes) == known.version:
            return known.content
        return Content(changes[-1], known.content.memory, known.content.shape, known.content.dtype)

    def _made(
        self,
        tensor: torch.Tensor,
        parents: tuple[int, ...],
        *,
        memory: int | None = None,
        fed: bool = False,
    ) -> Content:
        node = self._node(parents, fed=fed)
        content = Content(
            node, node if memory is None else memory, tuple(tensor.shape), tensor.dtype
        )
        self._known[tensor] = _Known(content, len(self._written[content.memory]))
        return content

    def _node(self, parents: tuple[int, ...], *, fed: bool = False) -> int:
        self.flow.parents.append(parents)
        self.flow.fed.append(fed or any(self.flow.fed[parent] for parent in parents))
        return len(self.flow.parents) - 1


def _memory(tensor: torch.Tensor) -> int:
    """A number that tensors alive at the same time share when they share memory."""
    if tensor.layout != torch.strided or tensor.is_mkldnn:
        return id(tensor)
    number: int = tensor.untyped_storage()._cdata
    return number
