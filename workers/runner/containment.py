"""What keeps a runner in bounds, set by itself before it touches anything uploaded."""

from __future__ import annotations

import resource

from workers.instructions import Instructions

_OPEN_FILES = 1024


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
