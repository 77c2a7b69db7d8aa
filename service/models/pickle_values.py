"""Stand-ins for what a pickle builds, and the names it may build with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from service.models.storage_types import STORAGES, TensorRef

_CLASS = re.compile(r"__torch__(\.[A-Za-z_][A-Za-z0-9_]*)*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
BUILDERS = frozenset({"build_intlist", "build_tensorlist", "build_doublelist", "build_boollist"})
CALLABLES = frozenset(
    {
        ("collections", "OrderedDict"),
        ("builtins", "complex"),
        ("torch", "device"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch.jit._pickle", "restore_type_tag"),
        *(("torch.jit._pickle", name) for name in BUILDERS),
    }
)
"""What torch's serialiser lets a pickle call, besides the classes of the program."""
_SCHEMES = frozenset({"per_tensor_affine", "per_channel_affine"})


class PickleRefused(Exception):
    """The pickle is not one that torch writes; the text says why."""


@dataclass(frozen=True)
class GlobalRef:
    """A name in the pickle: a class of the program, a callable, or a type of storage."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        """Module and name."""
        return f"{self.module}.{self.name}"


class Opaque:
    """Stands for a value whose content does not matter: a list, a dictionary, an object.

    Attributes:
        kind: which.
        weight: how many values lie in it, counted as often as they are reached.
        placed: it lies in another value and may not change any more, so that nothing can come to
            lie in itself.
    """

    def __init__(self, kind: str, weight: int = 1) -> None:
        self.kind = kind
        self.weight = weight
        self.placed = False


class Weighed(tuple[Any, ...]):
    """A tuple of more than numbers and texts, with its weight."""

    weight: int


@dataclass
class PickleContent:
    """What a pickle would build.

    Attributes:
        root: the outermost value: a tuple, an `Opaque`, or plain.
        opcodes: how many there are.
        classes: dotted names of the classes it makes objects of.
        types: the type names it tags values with.
        tensors: every tensor it rebuilds.
    """

    root: Any = None
    opcodes: int = 0
    classes: set[str] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    tensors: list[TensorRef] = field(default_factory=list)


def is_class(value: Any) -> bool:
    """Whether it is a class of the program."""
    return (
        isinstance(value, GlobalRef)
        and _CLASS.fullmatch(value.module) is not None
        and _IDENTIFIER.fullmatch(value.name) is not None
    )


def is_allowed(name: GlobalRef) -> bool:
    """Whether a pickle may name it, besides classes of the program."""
    if name.module == "torch" and (name.name in STORAGES or name.name in _SCHEMES):
        return True
    return (name.module, name.name) in CALLABLES


def is_dict(value: Any) -> bool:
    """Whether it stands for a dictionary."""
    return isinstance(value, Opaque) and value.kind == "dict"
