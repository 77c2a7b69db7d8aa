"""Kernels that give the same bits every time.

On a CPU with a fixed number of threads torch's kernels do. On CUDA some add in an order that
changes from run to run; torch has others for most of them (`torch.use_deterministic_algorithms`)
and refuses operators that have none. cuBLAS needs its workspace pinned as well, which the
environment of the process must say before CUDA starts (CUBLAS_WORKSPACE_CONFIG).
"""

from __future__ import annotations

import torch


def choose_kernels(*, deterministic: bool) -> None:
    """For all that this process computes from here on."""
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    # Trying kernels out picks the fastest of the moment.
    torch.backends.cudnn.benchmark = False
