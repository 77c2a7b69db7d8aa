"""Weights that a module keeps in a list besides their names.

A scripted `nn.LSTM`, `nn.GRU` or `nn.RNN` reads its weights from `_flat_weights`, an attribute of
type `Tensor[]` that holds the parameters once more. Whoever replaces a parameter (a smaller one, a
float64 one, a trained copy) would leave the list with the old tensors. So every read of such a
list becomes a list of reads of the named tensors, and the list itself is emptied.

Loading keeps the memory shared, which tells the name of each item. The methods of a class serve
all its instances, so a list is rewritten only where they all agree on the names, and where all
that is done with it is reading.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch

_READERS = frozenset(
    f"aten::{name}" for name in ("lstm", "gru", "rnn_tanh", "rnn_relu", "len", "__getitem__")
)
Names = tuple[str, ...]


def name_listed_weights(module: torch.jit.ScriptModule) -> bool:
    """Edit the methods of all submodules in place, before anything is inlined.

    Returns:
        Whether anything was rewritten.
    """
    instances: dict[str, list[Any]] = defaultdict(list)
    for _, owner in module.named_modules(remove_duplicate=False):
        instances[owner._c._type().qualified_name()].append(owner)
    reads: dict[tuple[str, str], list[Any]] = defaultdict(list)
    written: set[tuple[str, str]] = set()
    graphs = [
        owners[0]._c._get_method(name).graph
        for owners in instances.values()
        for name in owners[0]._c._method_names()
    ]
    for graph in graphs:
        for node in _nodes(graph):
            if node.kind() in {"prim::GetAttr", "prim::SetAttr"}:
                owner = next(node.inputs()).type()
                kind = owner.qualified_name() if owner.kind() == "ClassType" else ""
                key = (kind, node.s("name"))
                if node.kind() == "prim::SetAttr":
                    written.add(key)
                elif node.output().type().annotation_str == "List[Tensor]":
                    reads[key].append((graph, node))
    changed = False
    for key, nodes in reads.items():
        owners = instances.get(key[0], [])
        named = {_names(owner, key[1]) for owner in owners}
        names = named.pop() if len(named) == 1 else None
        if not names or key in written or not all(_only_read(node) for _, node in nodes):
            continue
        for graph, node in nodes:
            _spell_out(graph, node, names)
        for owner in owners:
            setattr(owner, key[1], [])
        changed = True
    return changed


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _names(owner: Any, attribute: str) -> Names | None:
    """Names of the listed tensors among the module's own, or None where one has no name."""
    own = dict(owner.named_parameters(recurse=False)) | dict(owner.named_buffers(recurse=False))
    listed = getattr(owner, attribute)
    by_memory = {
        (tensor.data_ptr(), tensor.shape): name for name, tensor in own.items() if tensor.numel()
    }
    names = [by_memory.get((tensor.data_ptr(), tensor.shape)) for tensor in listed]
    return None if None in names else tuple(name for name in names if name is not None)


def _only_read(node: Any) -> bool:
    return all(use.user.kind() in _READERS for use in node.output().uses())


def _spell_out(graph: Any, node: Any, names: Names) -> None:
    graph.setInsertPoint(node)
    values = []
    for name in names:
        read = graph.create("prim::GetAttr", [next(node.inputs())], 1)
        read.s_("name", name)
        graph.insertNode(read)
        read.output().setType(torch._C.TensorType.get())
        values.append(read.output())
    made = graph.create("prim::ListConstruct", values, 1)
    graph.insertNode(made)
    made.output().setType(torch._C.ListType.ofTensors())
    node.output().replaceAllUsesWith(made.output())
    node.destroy()
