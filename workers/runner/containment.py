"""What keeps a runner in bounds, set by itself before it touches anything uploaded."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

from workers.instructions import Instructions

_PR_SET_PDEATHSIG = 1
_OPEN_FILES = 1024


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its supervisor dies, even by SIGKILL.

    Otherwise the runner of a dead worker would go on computing beside the next attempt.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the kernel was told
        sys.exit("the supervisor is gone")


def limit_resources(instructions: Instructions) -> None:
    """Hard limits: no core dumps, bounded files and descriptors, bounded memory if set."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, instructions.file_bytes)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if instructions.memory_bytes is not None and instructions.device == "cpu":
        # data, not address space: libraries and mapped weights are not what runs a machine out of
        # memory. CUDA reserves terabytes of addresses as data, so there is no limit on GPUs
        _limit(resource.RLIMIT_DATA, instructions.memory_bytes)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
