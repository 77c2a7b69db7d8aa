"""Subnormal numbers, and why none may stay.

Weight decay and masked gradients drive unused weights towards zero without reaching it. Below
the smallest normal number (1.2e-38 in float32) x86 processors leave the fast path, and each
multiplication takes ten times as long or more: a pruned and trained network could end up slower
than its dense original although it computes less. So subnormals are flushed while training, and
any that remain in the weights are set to zero, which changes no result by more than the rounding
of float32 itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from engine.training.dense import pieces


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """The processor treats subnormals as zero, where it can (x86 with SSE3, ARM64)."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def zero_subnormal(tensors: Mapping[str, Tensor]) -> int:
    """Set subnormal elements to zero in place; returns how many there were."""
    count = 0
    with torch.no_grad():
        for tensor in tensors.values():
            if not tensor.is_floating_point():
                continue
            for piece in pieces(tensor.detach()):
                count += _zero_subnormal(piece)
    return count


def _zero_subnormal(piece: Tensor) -> int:
    limits = torch.finfo(piece.dtype)
    largest = limits.tiny - limits.tiny * limits.eps
    # Mostly there are none, and zeros in their place tell so: shrinking changes nothing then.
    if torch.equal(hardshrink(piece, largest), piece):
        return 0
    small = (piece.abs() < limits.tiny) & (piece != 0)
    found = int(small.sum())
    if found:
        piece.masked_fill_(small, 0.0)
    return found
