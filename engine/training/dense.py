"""Tensors as ranges of memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_PIECE = 1 << 17
"""Elements of a piece: a few tensors of so many stay in a core's cache from one pass to the next,
and calls are few enough not to count."""


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill a range of memory, in any order of dimensions, each its own place.

    Autograd gives gradients the strides of such a parameter, and optimisers their moments.
    """
    last = sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return tensor.numel() == 0 or last + 1 == tensor.numel()


def pieces(tensor: Tensor) -> Sequence[Tensor]:
    """The elements in views to work on one after another, in whatever order they lie in memory.

    Several passes over a piece read memory once: on a CPU that takes a fifth of the time of passes
    over the whole. Elsewhere, and where they do not lie together, there is one piece.
    """
    if tensor.device.type != "cpu" or tensor.numel() <= _PIECE or not is_dense(tensor):
        return [tensor]
    flat = tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    return torch.split(flat, _PIECE)


def pieces_together(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The same elements of tensors of one shape, piece by piece, as `pieces` gives them.

    Tensors that lie differently in memory are one piece.
    """
    first = _places(tensors[0])
    if any(_places(other) != first for other in tensors[1:]):
        return [tensors]
    return zip(*(pieces(tensor) for tensor in tensors), strict=True)


def _places(tensor: Tensor) -> list[tuple[int, int]]:
    """Dimensions and strides by which the elements are found; those of size 1 find none."""
    return [
        (dimension, stride)
        for dimension, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True))
        if size > 1
    ]
