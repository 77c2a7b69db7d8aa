"""The limits of one runner, from the settings and the machine."""

from __future__ import annotations

import os
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from persistence.settings import Settings
from workers.instructions import Instructions
from workers.runner_process import Bounds
from workers.sandbox.launch import Level
from workers.sandbox.policy import Limits

_OPEN_FILES = 1024
_SHARE_OF_MEMORY = 0.8
_LEAST_PROCESSES = 1024
_PROCESSES_PER_CORE = 32
_CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")


def bounds(settings: Settings, instructions: Instructions, level: Level) -> Bounds:
    """What contains the runner of a job."""
    on_cpu = instructions.device == "cpu"
    recipe = instructions.recipe
    return Bounds(
        level=level,
        limits=Limits(
            cpu_seconds=cpu_seconds(settings),
            # data, not address space: libraries and mapped weights are not what runs a machine out
            # of memory. CUDA reserves terabytes of addresses as data: no such limit on GPUs
            data_bytes=memory_bytes(settings) if on_cpu else None,
            file_bytes=settings.runner_file_bytes,
            open_files=_OPEN_FILES,
            # a backstop for what grows faster than the worker looks. Without a user namespace the
            # kernel would count what else the worker's user runs
            processes=2 * processes(settings) if level == "full" else None,
        ),
        gpu=not on_cpu,
        loopback=recipe is not None and recipe.devices > 1,
        read=settings.sandbox_read_paths,
    )


def memory_bytes(settings: Settings) -> int:
    """Memory of all processes of a runner; four fifths of the machine's or the container's."""
    if settings.runner_memory_bytes is not None:
        return settings.runner_memory_bytes
    total = psutil.virtual_memory().total
    if _CGROUP_MEMORY.is_file():
        text = _CGROUP_MEMORY.read_text().strip()
        total = min(total, int(text)) if text.isdigit() else total
    return int(_SHARE_OF_MEMORY * total)


def cpu_seconds(settings: Settings) -> int:
    """CPU time of one process; what all cores give within the wall-clock limit."""
    cores = len(os.sched_getaffinity(0))
    return settings.runner_cpu_seconds or settings.max_job_seconds * cores


def processes(settings: Settings) -> int:
    """Processes and threads of a runner, together."""
    cores = len(os.sched_getaffinity(0))
    return settings.runner_processes or max(_LEAST_PROCESSES, _PROCESSES_PER_CORE * cores)
