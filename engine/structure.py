"""Nested arguments and results: tensors and plain values in lists, tuples and dictionaries.

TorchScript passes structure by value in both directions, and gives a `NamedTuple` back as a class
of its own making. Here every tuple becomes a plain one, so that what came from the runtime, from
the interpreter and from another process compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same structure in containers of its own, every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list):
        return [map_tensors(item, change) for item in value]
    if isinstance(value, tuple):
        return tuple(map_tensors(item, change) for item in value)
    if isinstance(value, dict):
        return {key: map_tensors(item, change) for key, item in value.items()}
    return value


def leaves(value: Any, kind: type[T]) -> Iterator[T]:
    """What is of one type anywhere in nested data, in order."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item, kind)
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item, kind)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested data, in order."""
    return list(leaves(value, Tensor))


def samples_in(inputs: Sequence[Any]) -> int:
    """Samples in arguments of forward: the leading size of the first tensor that has one, or 1."""
    return next((int(tensor.shape[0]) for tensor in tensors_in(inputs) if tensor.dim()), 1)


def at_batch_size(inputs: Sequence[Any], size: int) -> tuple[Any, ...]:
    """The example repeated or cut along dimension 0 to `size` samples.

    Only tensors that share the first one's leading size carry samples; others (a scalar, a
    table) stay as they are, and so do numbers.
    """
    leading = samples_in(inputs)

    def resized(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != leading or leading == size:
            return tensor
        rows = torch.arange(size, device=tensor.device) % leading
        return tensor.index_select(0, rows)

    return tuple(map_tensors(value, resized) for value in inputs)


def pairs(left: Any, right: Any) -> Iterator[tuple[Any, Any]]:
    """Leaves of two structures side by side; where the structures differ, the parts that do.

    Dictionaries match by key, whatever the order.
    """
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        for key, value in left.items():
            yield from pairs(value, right[key])
    elif any(
        isinstance(left, kind) and isinstance(right, kind) and len(left) == len(right)
        for kind in (list, tuple)
    ):
        for one, other in zip(left, right, strict=True):
            yield from pairs(one, other)
    else:
        yield left, right
