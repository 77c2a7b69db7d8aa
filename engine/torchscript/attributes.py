"""The submodules and tensors of a script module, by dotted path.

Torch's Python modules look up every name along the way each time. Here the modules are found once
and asked directly: which modules and names there are does not change while a program lives, what
the names hold does.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch


class Attributes:
    """What a module and its submodules hold.

    Args:
        module: a `torch._C.ScriptModule`.
    """

    def __init__(self, module: Any) -> None:
        self._modules = modules_of(module)
        self._places: dict[str, tuple[Any, str]] = {}

    @cached_property
    def parameters(self) -> list[str]:
        """Names of the parameters, shared ones under each of their names, in order."""
        return self._listed(torch._C.ParameterDict)

    @cached_property
    def buffers(self) -> list[str]:
        """Names of the buffers, shared ones under each of their names, in order."""
        return self._listed(torch._C.BufferDict)

    def like(self, other: Attributes) -> None:
        """Take the names from those of a clone."""
        self.__dict__.update(parameters=other.parameters, buffers=other.buffers)

    def is_module(self, path: str) -> bool:
        """Whether a submodule is at this path."""
        return path in self._modules

    def __getitem__(self, path: str) -> Any:
        """The value of a parameter, buffer or other attribute.

        Raises:
            KeyError: there is no such module.
            RuntimeError: the module has no such attribute.
        """
        module, name = self._place(path)
        return module.getattr(name)

    def __setitem__(self, path: str, value: Any) -> None:
        """Put a tensor in the place of the one that is there."""
        module, name = self._place(path)
        module.setattr(name, value)

    def _place(self, path: str) -> tuple[Any, str]:
        place = self._places.get(path)
        if place is None:
            owner, _, name = path.rpartition(".")
            place = self._places[path] = self._modules[owner], name
        return place

    def _listed(self, kind: Any) -> list[str]:
        return [
            joined(path, name)
            for path, module in self._modules.items()
            for name, _ in kind(module).items()
        ]


def joined(path: str, name: str) -> str:
    """The path of what a module at a path calls `name`."""
    return f"{path}.{name}" if path else name


def modules_of(module: Any) -> dict[str, Any]:
    """A module and its submodules by path."""
    found: dict[str, Any] = {}
    _gather("", module, found)
    return found


def _gather(path: str, module: Any, found: dict[str, Any]) -> None:
    found[path] = module
    for name, inner in torch._C.ModuleDict(module).items():
        _gather(joined(path, name), inner, found)
