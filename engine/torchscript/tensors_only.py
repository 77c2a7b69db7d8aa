"""A program whose forward takes tensors and gives tensors, whatever the one inside takes and gives.

Serving systems know lists of named tensors. Forward of the wrapper takes every tensor of the
arguments by itself, puts them in the lists, tuples and dictionaries that the program wants, and
takes its result apart into one tuple. It is plain TorchScript, compiled here from lines written
for the structure at hand; the program inside is called as it is.

What is no tensor is a constant of the wrapper: numbers, texts and None among the arguments. Sizes
of lists and the keys of dictionaries are those of the example; another size at run time raises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.structure import leaves


class NotFlat(Exception):
    """An argument or a result holds what cannot be passed as a tensor, and how it is said."""


class _Flat(torch.jit.ScriptModule):
    def __init__(self, model: torch.jit.ScriptModule, source: str) -> None:
        super().__init__()
        self.model = model
        self.define(source)


def is_flat(inputs: Sequence[Any], output: Any) -> bool:
    """Whether arguments are tensors, and the result a tensor or a tuple of tensors, already."""
    given = output if isinstance(output, tuple) and output else (output,)
    return all(isinstance(value, Tensor) for value in (*inputs, *given))


def flat_arguments(count: int) -> list[str]:
    """Names of the wrapper's arguments."""
    return [f"tensor_{index}" for index in range(count)]


def flatten(
    model: torch.jit.ScriptModule, inputs: Sequence[Any], output: Any
) -> torch.jit.ScriptModule:
    """The wrapper around a module.

    Args:
        model: it keeps its weights, and is part of the wrapper.
        inputs: example arguments.
        output: what the module gives for them.

    Returns:
        A module whose forward takes the tensors of `inputs` in order and gives a tuple of the
        tensors of `output` in order.

    Raises:
        NotFlat: the example holds something else that has no place in it.
    """
    names = iter(flat_arguments(sum(1 for _ in leaves(list(inputs), Tensor))))
    given = [_literal(value, names) for value in inputs]
    returned = model._c._get_method("forward").schema.returns[0].type
    unpacking = _Unpacking()
    unpacking.unpack("result", output, returned)
    if not unpacking.tensors:
        raise NotFlat("the result holds no tensor")
    takes = flat_arguments(sum(1 for _ in leaves(list(inputs), Tensor)))
    source = "\n    ".join(
        [
            f"def forward(self, {', '.join(f'{name}: Tensor' for name in takes)}):",
            f"result = self.model({', '.join(given)})",
            *unpacking.lines,
            f"return ({', '.join(unpacking.tensors)},)\n",
        ]
    )
    try:
        wrapper = _Flat(model, source)
    except RuntimeError as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise NotFlat(f"its structure cannot be written in TorchScript: {reason}") from error
    wrapper.eval()
    return wrapper


def _literal(value: Any, names: Iterator[str]) -> str:
    if isinstance(value, Tensor):
        return next(names)
    if isinstance(value, list):
        return f"[{', '.join(_literal(item, names) for item in value)}]"
    if isinstance(value, tuple):
        return f"({''.join(_literal(item, names) + ', ' for item in value)})"
    if isinstance(value, dict):
        pairs = (f"{key!r}: {_literal(item, names)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    raise NotFlat(f"an argument holds {value!r}")


class _Unpacking:
    """The lines that take a result apart, and the variables that hold its tensors."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tensors: list[str] = []

    def unpack(self, name: str, value: Any, kind: Any, path: str = "") -> None:
        """Args: name: of the variable. kind: its type. path: in words, for what is raised."""
        if value is None:
            return
        if kind.kind() == "OptionalType":
            self._insist(
                f"{name} is not None", f"the result{path} is None, which it is not with the example"
            )
            kind = kind.getElementType()
        if isinstance(value, Tensor):
            self.tensors.append(name)
            return
        if not isinstance(value, tuple):
            if not isinstance(value, list | dict):
                raise NotFlat(f"the result{path} is {value!r}, no tensor")
            self._insist(
                f"len({name}) == {len(value)}",
                f"the result{path} has another length than with the example",
            )
        for at, (key, item, inner) in enumerate(_parts(value, kind)):
            part = f"{name}_{at}"
            if item is not None:
                self.lines.append(f"{part} = {name}[{key}]")
            self.unpack(part, item, inner, f"{path}[{key}]")

    def _insist(self, condition: str, otherwise: str) -> None:
        self.lines.append(f"assert {condition}, {otherwise!r}")


def _parts(value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    """Index, value and type of what a structure holds."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield repr(key), item, kind.getValueType()
        return
    inner = kind.elements() if isinstance(value, tuple) else [kind.getElementType()] * len(value)
    for index, (item, own) in enumerate(zip(value, inner, strict=True)):
        yield str(index), item, own
