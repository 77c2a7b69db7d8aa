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
            if tensor.is_floating_point():
                small = (tensor.abs() < torch.finfo(tensor.dtype).tiny) & (tensor != 0)
                count += int(small.sum())
                tensor.masked_fill_(small, 0.0)
    return count
