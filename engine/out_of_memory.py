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
    return isinstance(error, RuntimeError) and _says_so(str(error))


def _says_so(text: str) -> bool:
    return any(sign in text.lower() for sign in _SIGNS)


def out_of_memory(error: BaseException, *, doing: str, where: str) -> OutOfMemory:
    """The product's error for it.

    Args:
        error: for which `is_out_of_memory` holds.
        doing: what the job did, after "while".
        where: the recipe field or dataset tensor that decides how much is needed.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # TorchScript puts a traceback before the line that says so, CUDA statistics behind it.
    reason = next((line for line in lines if _says_so(line)), lines[0])
    return OutOfMemory(
        f"out of memory while {doing}: {reason}",
        hint="lower `batch_size`, or run on a device with more memory",
        where=where,
    )
