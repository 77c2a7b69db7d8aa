"""Memory that training holds: of the GPU where it trains on one, else of the process."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Literal

import torch

MemoryKind = Literal["cuda_peak_allocated", "process_resident"]
_STATM = Path("/proc/self/statm")


def memory_kind(device: str) -> MemoryKind:
    """What `memory_held` counts on this device."""
    return "cuda_peak_allocated" if device.startswith("cuda") else "process_resident"


def begin_peak(device: str) -> None:
    """The peak of the GPU is counted from here."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def memory_held(device: str) -> int:
    """Bytes: the most that tensors took on the GPU, or what the process holds resident.

    Where the system does not say what a process holds now, it is the most it ever held.
    """
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # In bytes on macOS, in KiB elsewhere.
        return most if sys.platform == "darwin" else most * 1024
