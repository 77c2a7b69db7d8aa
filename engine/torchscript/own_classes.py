"""Submodules with classes of their own, so that one of them can be changed and not its like.

Scripted modules of the same kind share a class, and with it their attributes and methods. Here the
modules on the way to some submodules are made anew, with classes that no other module has; those
that shared a class and are changed alike share one again, which keeps files small. They lose their
methods: those of the program hold all their code once they are inlined.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
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
    changes: Mapping[str, Hashable] = MappingProxyType({}),
) -> Any:
    """A program's module whose touched submodules have classes of their own.

    Args:
        module: `torch._C.ScriptModule` with inlined methods and empty tensors, which are copied;
            it is used up.
        touched: paths of submodules.
        removed: attributes to leave out, by path of the module; nothing may read them any more.
        added: submodules to add, by path of the module and name.
        changes: what else is to be changed in touched submodules, by path; only those for which it
            is equal share a class.

    Returns:
        The new module. Its submodules are in the order they were in, added ones behind.

    Raises:
        WeightCannotBeStored: the program does more with a touched submodule than read from it.
    """
    ways = {path[:end] for path in touched for end in _ends(path)}
    rebuilding = _Rebuilding(ways, removed, added, changes)
    children = {
        name: rebuilding.rebuilt(child, name) if name in ways else child
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


@dataclass
class _Rebuilding:
    """Makes modules anew, from the innermost to the outermost."""

    ways: Collection[str]
    removed: Mapping[str, Collection[str]]
    added: Mapping[str, Mapping[str, Any]]
    changes: Mapping[str, Hashable]
    made: dict[Hashable, Any] = field(default_factory=dict)

    def rebuilt(self, module: Any, path: str) -> Any:
        """A module with a class of its own, or with that of one that was changed alike."""
        old = dict(torch._C.ModuleDict(module).items())
        children = {
            name: self.rebuilt(child, joined(path, name))
            if joined(path, name) in self.ways
            else child
            for name, child in old.items()
        } | dict(self.added.get(path, {}))
        removed = sorted(self.removed.get(path, ()))
        types = tuple((name, _class_of(child)) for name, child in children.items())
        key = (_class_of(module), tuple(removed), types, self.changes.get(path))
        if key in self.made:
            return self._like(self.made[key], module, children)
        new = _clone(module, list(module._method_names()), [*removed, *old])
        for name, child in children.items():
            new._register_attribute(name, child._type(), child)
        self.made[key] = new
        return new

    @staticmethod
    def _like(first: Any, module: Any, children: Mapping[str, Any]) -> Any:
        """Another module of the first one's class, with the values of the module it is made for."""
        new = copy.deepcopy(first)
        concrete: Any = torch._C.ConcreteModuleType.from_jit_type(first._type())
        for name in concrete.get_attributes():
            new.setattr(name, module.getattr(name))
        for name, child in children.items():
            new.setattr(name, child)
        return new


def _class_of(module: Any) -> str:
    return str(module._type().qualified_name())


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
