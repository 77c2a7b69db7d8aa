"""A program that takes tensors and gives tensors, in the place of one with nested arguments.

Formats such as ONNX know inputs and outputs by name, and nothing of lists, dictionaries or numbers
among them. The flat program takes every tensor of the example arguments by itself, puts the
structure together as forward takes it (with the plain values of the example in it), and gives every
tensor of the outputs by itself. Both are named after where they are: `x`, `batch.ids`, `boxes_0`.

It is written as TorchScript source around forward, inlined, and given the parameters of the program
themselves, under their own names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import UnsupportedOperator
from engine.torchscript.arguments import arguments_of
from engine.torchscript.program import Program

_INNER = "secateur_inner"
_ALONE = "output"


@dataclass(frozen=True)
class Flat:
    """A program with flat arguments and results.

    Attributes:
        program: takes as many tensors as `inputs` has names, gives as many as `outputs`, a tuple
            even of one.
        inputs: names of the arguments, in order.
        outputs: names of the results, in order.
        left_out: places of the output that hold None for the example, and are not given.
        fixed: plain arguments, which have the value of the example.
    """

    program: Program
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    left_out: tuple[str, ...]
    fixed: tuple[str, ...]


def flatten(program: Program, inputs: Sequence[Any], outputs: Any) -> Flat:
    """The flat program.

    Args:
        program: as the engine reads it; shares its weights with the result.
        inputs: example arguments of forward.
        outputs: what forward gives for them.

    Raises:
        UnsupportedOperator: an argument or a result has no place among tensors.
    """
    names = [argument.name for argument in arguments_of(program)]
    arguments = _Arguments()
    given = ", ".join(
        arguments.source(value, name) for name, value in zip(names, inputs, strict=False)
    )
    results = _Results()
    kind = program.schema().returns[0].type
    results.read(outputs, kind, "found", "")
    if not results.names:
        raise UnsupportedOperator(
            "the model gives no tensor", where="forward", hint="its outputs are plain values"
        )
    signature = "".join(f", {_word(name)}: Tensor" for name in arguments.names)
    source = (
        f"def forward(self{signature}):\n"
        f"    found = self.{_INNER}({given})\n"
        f"    return ({', '.join(results.sources)},)\n"
    )
    made = _wrapped(program, source)
    return Flat(
        made,
        tuple(arguments.names),
        tuple(results.names),
        tuple(results.left_out),
        tuple(arguments.fixed),
    )


class _Arguments:
    """Source of nested arguments, with a name for each tensor."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.fixed: list[str] = []

    def source(self, value: Any, name: str) -> str:
        if isinstance(value, Tensor):
            self.names.append(_free(name, self.names))
            return _word(self.names[-1])
        if isinstance(value, list):
            items = [self.source(item, f"{name}_{at}") for at, item in enumerate(value)]
            return f"[{', '.join(items)}]"
        if isinstance(value, tuple):
            items = [self.source(item, f"{name}_{at}") for at, item in enumerate(value)]
            return f"({', '.join(items)},)"
        if isinstance(value, dict):
            entries = [
                f"{key!r}: {self.source(item, f'{name}.{key}')}" for key, item in value.items()
            ]
            return f"{{{', '.join(entries)}}}"
        if value is not None:
            self.fixed.append(name)
        return repr(value)


class _Results:
    """Source that takes every tensor out of the outputs, with a name for each."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sources: list[str] = []
        self.left_out: list[str] = []

    def read(self, value: Any, kind: Any, source: str, name: str) -> None:
        if value is None:
            self.left_out.append(name or _ALONE)
            return
        if kind.kind() == "OptionalType":
            kind, source = kind.getElementType(), f"torch.jit._unwrap_optional({source})"
        if isinstance(value, Tensor):
            self.names.append(_free(name or _ALONE, self.names))
            self.sources.append(source)
        elif isinstance(value, dict):
            for key, item in value.items():
                inner = f"{name}.{key}" if name else str(key)
                self.read(item, kind.getValueType(), f"{source}[{key!r}]", inner)
        elif isinstance(value, list | tuple):
            kinds = _kinds(kind, len(value))
            for at, (item, inner_kind) in enumerate(zip(value, kinds, strict=True)):
                self.read(item, inner_kind, f"{source}[{at}]", f"{name or _ALONE}_{at}")
        else:
            raise UnsupportedOperator(
                f"the model gives a {type(value).__name__} beside its tensors (`{name or _ALONE}`)",
                where="forward",
                hint="the format knows tensors only; give it as one",
            )


def _kinds(kind: Any, count: int) -> list[Any]:
    if kind.kind() == "TupleType":
        return list(kind.elements())
    return [kind.getElementType()] * count


def _word(name: str) -> str:
    """A name that TorchScript takes."""
    return "given_" + re.sub(r"\W", "_", name)


def _free(name: str, taken: list[str]) -> str:
    number, free = 1, name
    words = {_word(one) for one in taken}
    while _word(free) in words:
        number, free = number + 1, f"{name}_{number}"
    return free


class _Holder(nn.Module):
    """What forward is written for: a module that holds the program's."""

    def __init__(self, inner: torch.jit.ScriptModule) -> None:
        super().__init__()
        setattr(self, _INNER, inner)


def _wrapped(program: Program, source: str) -> Program:
    """A module of this forward, which calls the program's own and has its attributes."""
    inner = program.copy(share=True)
    holder: Any = torch.jit.script(_Holder(inner.module).eval())
    holder.define(source)
    module = holder._c
    graph = module._get_method("forward").graph
    torch._C._jit_pass_inline(graph)
    own = next(iter(graph.inputs()))
    for node in list(graph.nodes()):
        if node.kind() == "prim::GetAttr" and node.s("name") == _INNER:
            node.output().replaceAllUsesWith(own)
            node.destroy()
    for node in graph.findAllNodes("prim::GetAttr", recurse=True):
        name, kind = node.s("name"), node.output().type()
        if node.inputsAt(0).unique() == own.unique() and not module.hasattr(name):
            module._register_attribute(name, kind, inner._c.getattr(name))
    clone: Any = getattr(torch._C, "_hack_do_not_use_clone_module_with_class")  # noqa: B009
    return Program(clone(module, [], [_INNER]), program.device)
