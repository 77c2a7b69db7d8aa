"""Submodules with classes of their own, so that one of them can be changed and not its like.

Scripted modules of the same kind share a class, and with it their attributes and methods. Here the
modules on the way to some submodules are made anew, each with a class that no other module has.
They lose their methods: those of the program hold all their code once they are inlined.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from engine.errors import WeightCannotBeStored
from engine.torchscript.attributes import joined
from engine.torchscript.decoders import attribute_uses, nodes_within

_clone: Callable[..., Any] = getattr(torch._C, "_hack_do_not_use_clone_module_with_class")  # noqa: B009


def with_own_classes(
    module: Any,
    touched: Collection[str],
    *,
    removed: Mapping[str, Collection[str]],
    added: Mapping[str, Mapping[str, Any]],
) -> Any:
    """A program's module whose touched submodules have classes of their own.

    Args:
        module: `torch._C.ScriptModule` with inlined methods and empty tensors, which are copied;
            it is used up.
        touched: paths of submodules.
        removed: attributes to leave out, by path of the module; nothing may read them any more.
        added: submodules to add, by path of the module and name.

    Returns:
        The new module. Its submodules are in the order they were in, added ones behind.

    Raises:
        WeightCannotBeStored: the program does more with a touched submodule than read from it.
    """
    ways = {path[:end] for path in touched for end in _ends(path)}
    children = {
        name: _rebuilt(child, name, ways, removed, added) if name in ways else child
        for name, child in torch._C.ModuleDict(module).items()
    } | dict(added.get("", {}))
    methods = [module._get_method(name).graph for name in module._method_names()]
    waiting = {name: _free_name(module, name) for name in children}
    # A method may not read what a clone leaves out, so the new children come under other names
    # first, and in a second clone under their own.
    for name, child in children.items():
        module._register_attribute(waiting[name], child._type(), child)
    for graph in methods:
        _rename(graph, waiting)
        _retype(graph, module, ways, waiting)
    left_out = [*removed.get("", ()), *(name for name in children if module.hasattr(name))]
    module = _clone(module, [], left_out)
    for name, other in waiting.items():
        child = module.getattr(other)
        module._register_attribute(name, child._type(), child)
    back = {other: name for name, other in waiting.items()}
    for name in module._method_names():
        _rename(module._get_method(name).graph, back)
    return _clone(module, [], list(back))


def _ends(path: str) -> list[int]:
    return [*(at for at, letter in enumerate(path) if letter == "."), len(path)]


def _rebuilt(
    module: Any,
    path: str,
    ways: Collection[str],
    removed: Mapping[str, Collection[str]],
    added: Mapping[str, Mapping[str, Any]],
) -> Any:
    children = dict(torch._C.ModuleDict(module).items())
    made = _clone(module, list(module._method_names()), [*removed.get(path, ()), *children])
    for name, child in children.items():
        inner = joined(path, name)
        new = _rebuilt(child, inner, ways, removed, added) if inner in ways else child
        made._register_attribute(name, new._type(), new)
    for name, child in added.get(path, {}).items():
        made._register_attribute(name, child._type(), child)
    return made


def _free_name(module: Any, name: str) -> str:
    free = f"{name}_of_its_own"
    while module.hasattr(free):
        free += "_"
    return free


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Read other attributes of the program's own module."""
    itself = next(iter(graph.inputs())).unique()
    for node in nodes_within(graph):
        if (
            node.kind() in {"prim::GetAttr", "prim::SetAttr"}
            and node.inputsAt(0).unique() == itself
            and node.s("name") in names
        ):
            node.s_("name", names[node.s("name")])


def _retype(graph: Any, module: Any, ways: Collection[str], waiting: Mapping[str, str]) -> None:
    """Give reads of submodules the classes that the submodules have by now."""
    own = {other: name for name, other in waiting.items()}
    found = {"": module}
    for node, path in attribute_uses(graph):
        owner, _, name = path.rpartition(".")
        read = node.kind() == "prim::GetAttr" and owner in found
        if not read or name not in dict(torch._C.ModuleDict(found[owner]).items()):
            continue
        found[path] = found[owner].getattr(name)
        node.output().setType(found[path]._type())
        first, *rest = path.split(".")
        if ".".join([own.get(first, first), *rest]) in ways:
            _refuse_values(node, path)


def _refuse_values(node: Any, path: str) -> None:
    for use in node.output().uses():
        if use.user.kind() not in {"prim::GetAttr", "prim::SetAttr"}:
            raise WeightCannotBeStored(
                f"the program uses the module `{path}` as a value ({use.user.kind()})",
                where=path,
                hint="`exclude` the layers in it from quantisation",
            )
