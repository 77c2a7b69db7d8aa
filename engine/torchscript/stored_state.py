"""Modules that are written small and are whole again once they are loaded.

A module class with `__getstate__` and `__setstate__` is written as what the first gives, and the
second makes it from that when `torch.jit.load` (or LibTorch's `load`) reads the file. Here the
first gives the stored tensors of a weight and the second decodes them, so the program itself, and
the names and types of its tensors, stay as they are.

The stored tensors stay in memory beside the weights, for the file must be small when it is saved
again. Whoever trains, prunes or converts a loaded weight must not lose that in the next file: a
weight that is no longer what its stored tensors decode to is written as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.torchscript.attributes import modules_of
from engine.torchscript.decoders import compiled, forget_sources
from engine.torchscript.own_classes import with_own_classes

if TYPE_CHECKING:
    from engine.torchscript.program import Program

STORED = "stored_weights"
"""Attribute that holds the stored tensors of a module's weights, by name."""
_DECODED = "decoded_"
_METHODS = frozenset({"__getstate__", "__setstate__"})
_PLAIN = re.compile(r"(Tensor|bool|int|float|str|List|Dict|Optional|Tuple|[\[\], ])+")
"""Types that can be written in a method's signature."""


def can_store(module: Any) -> bool:
    """Whether a module's state can be written out: it holds tensors and plain values alone."""
    kinds = _kinds(module)
    taken = STORED in kinds or any(name.startswith(_DECODED) for name in kinds)
    children = any(torch._C.ModuleDict(module).items())
    return not (taken or children) and all(
        kind == "NoneType" or _PLAIN.fullmatch(kind) for kind in kinds.values()
    )


def weight_holder(weight: Tensor) -> Any:
    """A module with a parameter `weight`, for one whose own module cannot be written so."""
    made = _class_of()()
    parameter = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    made.register_parameter("weight", parameter)
    return torch.jit.script(made.eval())._c


def buffer_holder(buffers: Mapping[str, Tensor]) -> Any:
    """A module with some buffers; all with the same names share a class."""
    made = _buffers_class(tuple(buffers))()
    for name, buffer in buffers.items():
        made.register_buffer(name, buffer)
    return torch.jit.script(made.eval())._c


@cache
def _buffers_class(names: tuple[str, ...]) -> type[nn.Module]:  # noqa: ARG001  one for each
    return _class_of()


def _class_of() -> type[nn.Module]:
    return type("Stored", (nn.Module,), {"__module__": "secateur"})


def store_state(
    module: Any, weights: Mapping[str, tuple[str, Sequence[Tensor]]], trained: Mapping[str, bool]
) -> None:
    """Define how a module is written and read.

    Args:
        module: whose class no other module has but those with the same decoders, see
            `engine.torchscript.own_classes`.
        weights: by attribute, a decoder's source and the stored tensors, in the order it takes.
        trained: whether the weight is to have gradients once it is loaded.
    """
    kinds = {name: kind for name, kind in _kinds(module).items() if kind != "NoneType"}
    kind = torch._C.DictType(torch._C.StringType.get(), torch._C.ListType.ofTensors())
    parts = {name: list(stored) for name, (_, stored) in weights.items()}
    module._register_attribute(STORED, kind, parts)
    if set(module._method_names()) >= _METHODS:
        return  # of a class with a module that came before
    decoders = {f"decode_{at}": compiled(source) for at, (source, _) in enumerate(weights.values())}
    others = [name for name in kinds if name not in weights]
    state = ", ".join(
        ["Dict[str, List[Tensor]]", "Dict[str, Tensor]", *(kinds[name] for name in others)]
    )
    source = _decoding(weights) + _giving(weights, others, state)
    source += _taking(weights, others, state, trained)
    module._define(
        torch._C.ConcreteModuleType.from_jit_type(module._type()),
        source,
        lambda name: decoders.get(name, getattr(torch.jit, name, None)),
    )
    for at in range(len(weights)):
        torch._C._jit_pass_inline(module._get_method(_decoded(at)).graph)
    for name in module._method_names():
        forget_sources(module._get_method(name).graph)


def _decoded(at: int) -> str:
    return f"{_DECODED}{at}"


def _decoding(weights: Mapping[str, tuple[str, Sequence[Tensor]]]) -> str:
    lines = []
    for at, (_, parts) in enumerate(weights.values()):
        taken = ", ".join(f"parts[{part}]" for part in range(len(parts)))
        lines += [
            f"def {_decoded(at)}(self, parts: List[Tensor]) -> Tensor:",
            f"    return decode_{at}({taken})",
        ]
    return "\n".join([*lines, ""])


def _giving(weights: Iterable[str], others: Sequence[str], state: str) -> str:
    lines = [
        f"def __getstate__(self) -> Tuple[{state}]:",
        "    stored: Dict[str, List[Tensor]] = {}",
        "    dense: Dict[str, Tensor] = {}",
    ]
    for at, name in enumerate(weights):
        lines += [
            f"    if {name!r} in self.{STORED} and self.{name}.numel() > 0:",
            f"        parts = [part.to(self.{name}.device) for part in self.{STORED}[{name!r}]]",
            f"        made = self.{_decoded(at)}(parts)",
            f"        if made.dtype == self.{name}.dtype and torch.equal(made, self.{name}):",
            f"            stored[{name!r}] = parts",
            f"    if {name!r} not in stored:",
            f"        dense[{name!r}] = self.{name}",
        ]
    given = ", ".join(["stored", "dense", *(f"self.{name}" for name in others)])
    return "\n".join([*lines, f"    return ({given})", ""])


def _taking(
    weights: Iterable[str], others: Sequence[str], state: str, trained: Mapping[str, bool]
) -> str:
    lines = [
        f"def __setstate__(self, state: Tuple[{state}]) -> None:",
        f"    self.{STORED} = state[0]",
        "    dense = state[1]",
    ]
    lines += [f"    self.{name} = state[{at}]" for at, name in enumerate(others, start=2)]
    for at, name in enumerate(weights):
        lines += [
            f"    if {name!r} in self.{STORED}:",
            f"        decoded = self.{_decoded(at)}(self.{STORED}[{name!r}])",
            f"        self.{name} = decoded.requires_grad_({trained[name]})",
            "    else:",
            f"        self.{name} = dense[{name!r}]",
        ]
    return "\n".join([*lines, ""])


def storing(module: Any) -> list[str]:
    """Paths of the submodules that are written so."""
    return [
        path
        for path, owner in modules_of(module).items()
        if owner.hasattr(STORED) and set(owner._method_names()) >= _METHODS
    ]


def _kinds(module: Any) -> dict[str, str]:
    concrete: Any = torch._C.ConcreteModuleType.from_jit_type(module._type())
    held = concrete.get_attributes()
    return {name: kind.annotation_str for name, (kind, _) in held.items()}


def forget_stored(program: Program) -> Program:
    """The program that is written as it is: with its weights alone."""
    paths = storing(program._c)
    held = program.attributes()
    with program._without_weights(held):
        made = with_own_classes(
            program._c, paths, removed={path: [STORED] for path in paths}, added={}
        )
    plain = type(program)(made, program.device, program.calls)
    for name, tensor in held.items():
        plain._put(name, tensor)
    return plain
