"""Decoders in a graph: where a weight was read, stock operators make it from stored tensors.

A decoder is compiled from its source and its nodes are put into the graph, so no function of ours
is left in the file. The nodes stand before the first node of the outermost level that needs the
weight: once for all its readers, never inside a loop or a branch, and no earlier than needed, so
that the runtime holds one whole weight at a time where each has one reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from engine.errors import WeightCannotBeStored
from engine.torchscript.attributes import joined


def compiled(source: str) -> Any:
    """The function `decode` of a source, with the functions it calls put into it."""
    unit = torch.jit.CompilationUnit(source)
    function = unit.decode
    torch._C._jit_pass_inline(function.graph)
    forget_sources(function.graph)
    return function


def forget_sources(graph: Any) -> None:
    """Let nodes say nothing about the text they are from, which takes more bytes than they do."""
    unsaid = graph.create("prim::Constant", [], 1)
    for node in nodes_within(graph):
        node.copyMetadata(unsaid)


def decode_reads(graph: Any, decoders: Mapping[str, tuple[Sequence[str], str]]) -> None:
    """Replace every read of some weights, in inner blocks too, by decoders.

    Args:
        graph: of an inlined method.
        decoders: by path of the weight, paths of the parts and source of the decoder; the same
            pair for tied weights. Nothing need be at the paths yet.
    """
    made = _Made(graph)

    def decoder(target: tuple[Sequence[str], str]) -> Any:
        paths, source = target
        return graph.insertGraph(compiled(source).graph, [made.read(path) for path in paths])[0]

    _replace(graph, _reads(graph, decoders), decoder)


def redirect_reads(graph: Any, moved: Mapping[str, str]) -> None:
    """Read tensors where they are by now, by their old and new paths."""
    made = _Made(graph)
    _replace(graph, _reads(graph, moved), made.read)


def _replace(graph: Any, reads: Sequence[tuple[Any, Any]], make: Callable[[Any], Any]) -> None:
    waiting = {node.output().unique(): target for node, target in reads}
    found: dict[Any, Any] = {}
    for node in [*graph.nodes(), graph.return_node()]:
        for value in dict.fromkeys(needed_by(node)):
            target = waiting.get(value)
            if target is not None and target not in found:
                graph.setInsertPoint(node)
                found[target] = make(target)
    for node, target in reads:
        if target in found:
            node.output().replaceAllUsesWith(found[target])
    for node, _ in reads:
        node.destroy()


def _reads(graph: Any, targets: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The nodes that read some tensors, each with what the mapping has for its path.

    Raises:
        WeightCannotBeStored: the graph writes one of the tensors.
    """
    found = []
    for node, path in attribute_uses(graph):
        if path in targets and node.kind() == "prim::SetAttr":
            raise WeightCannotBeStored(
                f"the program replaces the weight `{path}` while it runs",
                where=path,
                hint="`exclude` its layer from quantisation",
            )
        if path in targets:
            found.append((node, targets[path]))
    return found


def attribute_uses(graph: Any) -> Iterator[tuple[Any, str]]:
    """Every read and write of an attribute, with its dotted path."""
    itself = next(iter(graph.inputs()))
    paths = {itself.unique(): ""}
    for node in list(nodes_within(graph)):
        if node.kind() not in {"prim::GetAttr", "prim::SetAttr"}:
            continue
        owner = node.inputsAt(0).unique()
        if owner in paths:
            path = joined(paths[owner], node.s("name"))
            if node.kind() == "prim::GetAttr":
                paths[node.output().unique()] = path
            yield node, path


def nodes_within(block: Any) -> Iterator[Any]:
    """All nodes of a graph or block and of the blocks inside them."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_within(inner)


def needed_by(node: Any) -> Iterator[int]:
    """Values that a node uses, those of its inner blocks included."""
    yield from (value.unique() for value in node.inputs())
    for block in node.blocks():
        yield from (value.unique() for value in block.outputs())
        for inner in block.nodes():
            yield from needed_by(inner)


class _Made:
    """Reads of attributes, put where the graph's insert point is."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def read(self, path: str) -> Any:
        """The tensor at a path. What type the modules on the way have is not known yet."""
        value = next(iter(self._graph.inputs()))
        for name in path.split("."):
            node = self._graph.create("prim::GetAttr", [value], 1)
            node.s_("name", name)
            self._graph.insertNode(node)
            value = node.output()
        value.setType(torch._C.TensorType.get())
        return value
