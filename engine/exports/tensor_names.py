"""What the tensors of arguments and results are called in formats that know tensors alone.

A tensor argument has the name of the argument; one inside a structure the names and positions that
lead to it, `state_0`, `batch_image`. Results have the keys that lead to them, and `output` in front
of a position: `logits`, `output_0`. Other characters than letters, digits and `_` become `_`,
two names that would be the same are numbered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

_OTHER = re.compile(r"[^0-9A-Za-z_]")
_UNDERSCORES = re.compile(r"__+")


def input_names(arguments: Sequence[str], inputs: Sequence[Any]) -> list[str]:
    """Names of the tensors in the arguments, in order.

    Args:
        arguments: of forward, by name.
        inputs: example values, one for each of the first of them.
    """
    paths = [
        path
        for name, value in zip(arguments, inputs, strict=False)
        for path in _paths(value, (name,))
    ]
    return _distinct(["_".join(path) for path in paths])


def output_names(output: Any) -> list[str]:
    """Names of the tensors in a result, in order."""
    names = []
    for path in _paths(output, ()):
        name = "_".join(path)
        names.append(name if path and not path[0].isdigit() else "_".join(("output", *path)))
    return _distinct(names)


def _paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Tensor):
        yield path
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, str(index)))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, str(key)))


def _distinct(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        plain = _UNDERSCORES.sub("_", _OTHER.sub("_", name)).strip("_") or "tensor"
        wanted, number = plain, 1
        while plain in found:
            number += 1
            plain = f"{wanted}_{number}"
        found.append(plain)
    return found
