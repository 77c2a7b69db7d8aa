"""Values of a graph that are the same for every input: weights, and what is computed of them alone.

A weight may be transposed, reshaped or converted on its way into an operator. What forward writes
to, by assignment or in place, is not the same for every input, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from engine.torchscript.attributes import joined
from engine.torchscript.effects import written_positions
from engine.torchscript.instructions import operator_of
from engine.torchscript.program import ModuleReference, Program

_OF_WEIGHTS = frozenset(
    f"aten::{name}"
    for name in (
        "t", "transpose", "permute", "view", "reshape", "flatten", "unflatten", "squeeze",
        "unsqueeze", "slice", "select", "contiguous", "detach", "clone", "to", "numpy_T",
    )
)  # fmt: skip
"""Operators that may stand between a weight and its reader."""


UNKNOWN = object()
"""What `Operands.plain` gives for a value that depends on the input."""


def nodes_in(block: Any) -> Iterator[Any]:
    """Every node of a graph or block, blocks inside them included, in order."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_in(inner)


@dataclass(frozen=True)
class Operand:
    """A tensor that is the same for every input.

    Attributes:
        name: of the weight it is, or is computed of.
        tensor: its value.
    """

    name: str
    tensor: Tensor

    @property
    def layer(self) -> str:
        """The layer the weight belongs to."""
        return self.name.rpartition(".")[0] or self.name


class Operands:
    """The constant operands of one inlined graph, before it is edited.

    Args:
        program: whose weights the graph reads.
        graph: of one of its methods.
    """

    def __init__(self, program: Program, graph: Any) -> None:
        self._program = program
        self._graph = graph
        self._itself = next(iter(graph.inputs())).unique()
        self.weights = self._weights()
        """Attributes that are the same for every input, by path."""

    def tensor(self, value: Any) -> Operand | None:
        """The constant tensor that a value is, or None."""
        node = value.node()
        kind = node.kind()
        if kind == "prim::GetAttr":
            path = self.path(value)
            return None if path is None else self.weights.get(path)
        if kind == "prim::Constant":
            held = value.toIValue()
            return Operand("constant", held) if isinstance(held, Tensor) else None
        if kind not in _OF_WEIGHTS:
            return None
        inner = self.tensor(node.inputsAt(0))
        if inner is None:
            return None
        rest: list[Any] = []
        for position in range(1, node.inputsSize()):
            given = self.plain(node.inputsAt(position))
            if given is UNKNOWN:
                return None
            rest.append(given)
        with torch.no_grad():
            made = operator_of(node.schema())(inner.tensor, *rest)
        return Operand(inner.name, made) if isinstance(made, Tensor) else None

    def plain(self, value: Any) -> Any:
        """The number, list or other plain constant that a value is, or `UNKNOWN`."""
        node = value.node()
        if node.kind() == "prim::Constant":
            return value.toIValue()
        if node.kind() == "prim::ListConstruct":
            items = [self.plain(item) for item in node.inputs()]
            return UNKNOWN if any(item is UNKNOWN for item in items) else items
        if node.kind() == "prim::GetAttr":
            path = self.path(value)
            if path is None or path in self._assigned:
                return UNKNOWN
            held = self._program.attribute(path)
            return UNKNOWN if isinstance(held, Tensor | ModuleReference) else held
        return UNKNOWN

    def path(self, value: Any) -> str | None:
        """The dotted path of an attribute or submodule, or None where a value is neither."""
        if value.unique() == self._itself:
            return ""
        node = value.node()
        if node.kind() != "prim::GetAttr":
            return None
        owner = self.path(node.inputsAt(0))
        return None if owner is None else joined(owner, node.s("name"))

    def _weights(self) -> dict[str, Operand]:
        aliases = self._graph.alias_db()
        written, lost = [], set[str]()
        for value in self._written():
            # An attribute is that attribute, even where lists make torch think of all of them.
            path = self.path(value)
            if path is None:
                written.append(value)
            else:
                lost |= self._same_memory(path)
        found: dict[str, Operand] = {}
        for node in nodes_in(self._graph):
            path = self.path(node.output()) if node.kind() == "prim::GetAttr" else None
            if path is None or path in found or path in lost:
                continue
            held = self._program.attribute(path)
            if not isinstance(held, Tensor) or path in self._assigned:
                continue
            if any(aliases.may_contain_alias(node.output(), value) for value in written):
                lost.add(path)
            else:
                found[path] = Operand(path, held.detach())
        return found

    def _same_memory(self, path: str) -> set[str]:
        tensors = self._program.attributes()
        start = tensors[path].untyped_storage().data_ptr()
        return {
            name for name, tensor in tensors.items() if tensor.untyped_storage().data_ptr() == start
        }

    def _written(self) -> Iterator[Any]:
        """Tensors that operators write to in place."""
        for node in nodes_in(self._graph):
            schema = node.schema() if node.kind().startswith("aten::") else "(no schema)"
            if schema != "(no schema)":
                for position in written_positions(schema):
                    value = node.inputsAt(position)
                    if value.type().annotation_str == "Tensor":
                        yield value

    @cached_property
    def _assigned(self) -> frozenset[str]:
        found = set()
        for node in nodes_in(self._graph):
            if node.kind() == "prim::SetAttr":
                owner = self.path(node.inputsAt(0))
                found.add(joined(owner or "", node.s("name")))
        return frozenset(found)
