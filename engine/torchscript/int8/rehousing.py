"""A program without the attributes and submodules that its methods no longer read.

Once an operator reads a packed weight, the weight in floating point has no reader left, but torch
saves what a module holds, read or not. Attributes cannot be taken from a class that exists. They
are left out of a clone instead, in two steps, for that works on the outermost module alone:

1. what is still read below a submodule `a` moves to a fresh module, which the program holds under
   a name that is free, and the graphs read it there; a clone leaves `a` itself out;
2. the fresh module takes the name `a`, and a second clone leaves the other name out.

Names of tensors that stay are what they were.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from engine.torchscript.attributes import joined
from engine.torchscript.int8.operands import nodes_in
from engine.torchscript.program import Program


@dataclass
class _House:
    """What stays of one submodule.

    Attributes:
        path: of the submodule.
        inner: submodules of it.
        names: attributes that are read, with their types.
    """

    path: str
    inner: dict[str, _House] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)


def rehoused(program: Program, kept: Collection[str] = ()) -> Program:
    """The same program holding only what its graphs read.

    Args:
        program: with graphs that were edited; it is used up.
        kept: direct attributes of its module that stay as they are, such as packed weights.
    """
    root = _House("")
    for graph in _graphs(program):
        _gather(graph, root, kept)
    held = {name: program._c.getattr(name) for name in _slots(program)}
    fresh = {name: _Built(program, house) for name, house in root.inner.items()}
    spare = {name: _free(name, held) for name in fresh}
    for name, built in fresh.items():
        program._c._register_attribute(spare[name], built.kind(""), built.module)
    for graph in _graphs(program):
        _rename(graph, spare, fresh)
    gone = [
        name for name in held if name not in root.names and name not in kept and name != "training"
    ]
    module = _clone(program._c, gone)
    if fresh:
        for name in fresh:
            moved = module.getattr(spare[name])
            module._register_attribute(name, moved._type(), moved)
        back = {other: name for name, other in spare.items()}
        for method in module._method_names():
            graph = module._get_method(method).graph
            itself = next(iter(graph.inputs())).unique()
            for node in nodes_in(graph):
                if node.kind() == "prim::GetAttr" and node.inputsAt(0).unique() == itself:
                    node.s_("name", back.get(node.s("name"), node.s("name")))
        module = _clone(module, list(back))
    return Program(module, program.device, program.calls)


class _Built:
    """A fresh module with what stays of a submodule."""

    def __init__(self, program: Program, house: _House) -> None:
        self._house = house
        plain: list[tuple[str, str, Any]] = []
        skeleton = _skeleton(program, house, "", plain)
        made: Any = torch.jit._recursive.create_script_module(  # type: ignore[no-untyped-call]
            skeleton.eval(), lambda _: [], share_types=not plain
        )
        self.module = made._c
        for path, name, kind in plain:
            self._at(path)._register_attribute(
                name, kind, program.attribute(joined(house.path, joined(path, name)))
            )

    def kind(self, path: str) -> Any:
        """The type of the module, or of one inside it."""
        return self._at(path)._type()

    def _at(self, path: str) -> Any:
        module = self.module
        for part in path.split(".") if path else []:
            module = module.getattr(part)
        return module


def _skeleton(
    program: Program, house: _House, path: str, plain: list[tuple[str, str, Any]]
) -> nn.Module:
    module = nn.Module()
    parameters = set(program._attributes.parameters)
    for name, kind in house.names.items():
        held = program.attribute(joined(house.path, name))
        if not isinstance(held, torch.Tensor):
            if name != "training":
                plain.append((path, name, kind))
        elif joined(house.path, name) in parameters:
            module.register_parameter(
                name, nn.Parameter(held.detach(), requires_grad=held.requires_grad)
            )
        else:
            module.register_buffer(name, held.detach())
    for name, inner in house.inner.items():
        module.add_module(name, _skeleton(program, inner, joined(path, name), plain))
    return module


def _gather(graph: Any, root: _House, kept: Collection[str]) -> None:
    """Note every attribute that a graph reads or writes."""
    houses = {next(iter(graph.inputs())).unique(): root}
    modules = {}
    for node in nodes_in(graph):
        if node.kind() not in {"prim::GetAttr", "prim::SetAttr"}:
            continue
        owner = houses.get(node.inputsAt(0).unique())
        name = node.s("name")
        if owner is None or (owner is root and name in kept):
            continue
        if node.kind() == "prim::GetAttr" and _is_module(node.output()):
            house = owner.inner.get(name) or _House(joined(owner.path, name))
            modules[node.output().unique()] = owner, name, house
            houses[node.output().unique()] = owner.inner[name] = house
        else:
            value = node.output() if node.kind() == "prim::GetAttr" else node.inputsAt(1)
            owner.names[name] = value.type()


def _is_module(value: Any) -> bool:
    kind = value.type()
    return kind.kind() == "ClassType" and not kind.annotation_str.startswith(
        "__torch__.torch.classes."
    )


def _rename(graph: Any, spare: dict[str, str], fresh: dict[str, _Built]) -> None:
    """Let a graph read the fresh modules."""
    itself = next(iter(graph.inputs())).unique()
    places: dict[int, tuple[str, str]] = {}
    for node in nodes_in(graph):
        if node.kind() != "prim::GetAttr":
            continue
        name, owner = node.s("name"), node.inputsAt(0).unique()
        if owner == itself and name in spare:
            places[node.output().unique()] = name, ""
            node.output().setType(fresh[name].kind(""))
            node.s_("name", spare[name])
        elif owner in places and _is_module(node.output()):
            top, path = places[owner]
            inner = joined(path, name)
            places[node.output().unique()] = top, inner
            node.output().setType(fresh[top].kind(inner))


def _graphs(program: Program) -> list[Any]:
    return [program.graph_of_method(name) for name in program._c._method_names()]


def _slots(program: Program) -> list[str]:
    """Direct attributes of the outermost module."""
    listed = [name for name, _ in torch._C.ModuleDict(program._c).items()]
    kinds: tuple[Any, ...] = (torch._C.ParameterDict, torch._C.BufferDict)
    for kind in kinds:
        listed += [name for name, _ in kind(program._c).items()]
    return listed


def _free(name: str, held: Collection[str]) -> str:
    while name in held or name.isdigit():
        name = f"kept_{name}"
    return name


def _clone(module: Any, without: list[str]) -> Any:
    # Torch's own bundled_inputs copies modules this way.
    clone: Any = getattr(torch._C, "_hack_do_not_use_clone_module_with_class")  # noqa: B009
    return clone(module, [], without)
