"""The submodules and tensors of a script module, by dotted path.

Torch's Python modules look up every name along the way each time. Here the modules are found once
and asked directly: which modules and names there are does not change while a program lives, what
the names hold does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch


class Attributes:
    """What a module and its submodules hold.

    Args:
        module: a `torch._C.ScriptModule`.
    """

    def __init__(self, module: Any) -> None:
        self._modules: dict[str, Any] = dict(_submodules("", module))

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
        owner, _, name = path.rpartition(".")
        return self._modules[owner].getattr(name)

    def __setitem__(self, path: str, value: Any) -> None:
        """Put a tensor in the place of the one that is there."""
        owner, _, name = path.rpartition(".")
        self._modules[owner].setattr(name, value)

    def _listed(self, kind: Any) -> list[str]:
        return [
            joined(path, name)
            for path, module in self._modules.items()
            for name, _ in kind(module).items()
        ]


def joined(path: str, name: str) -> str:
    """The path of what a module at a path calls `name`."""
    return f"{path}.{name}" if path else name


def _submodules(path: str, module: Any) -> Iterator[tuple[str, Any]]:
    yield path, module
    for name, inner in torch._C.ModuleDict(module).items():
        yield from _submodules(joined(path, name), inner)
