"""Which errors mean that memory ran out: they come from Python, from torch and from its kernels."""

from __future__ import annotations

import torch

from engine.errors import OutOfMemory

_SIGNS = (
    *("can't allocate memory", "cannot allocate memory", "not enough memory"),
    *("out of memory", "bad_alloc", "cudnn_status_alloc_failed", "cublas_status_alloc_failed"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says so."""
    if isinstance(error, OutOfMemory | MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS)


def out_of_memory(error: BaseException, *, doing: str, where: str) -> OutOfMemory:
    """The product's error for it.

    Args:
        error: for which `is_out_of_memory` holds.
        doing: what the job did, after "while".
        where: the recipe field or dataset tensor that decides how much is needed.
    """
    lines = str(error).strip().splitlines()
    reason = lines[-1] if lines else type(error).__name__
    return OutOfMemory(
        f"out of memory while {doing}: {reason}",
        hint="lower `batch_size`, or run on a device with more memory",
        where=where,
    )
