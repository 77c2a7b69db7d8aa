"""What a runner uses of the machine, all its processes together, as the worker sees it.

The kernel keeps limits per process. These hold for a runner as a whole: memory, the number of
processes and threads, and the space of its scratch folder.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from persistence.settings import Settings
from workers import bounds, endings
from workers.endings import Ending

_LOOK_SECONDS = 0.25
_SHARE_OF_TIME = 0.05
_BLOCK = 512


class UsageWatch:
    """Looks now and then, and says when a limit is passed."""

    def __init__(self, settings: Settings, pid: int, folder: Path, *, on_cpu: bool) -> None:
        self._pid = pid
        self._folder = folder
        self._memory = bounds.memory_bytes(settings)
        self._processes = bounds.processes(settings)
        self._scratch = settings.runner_scratch_bytes
        self._on_cpu = on_cpu
        self._next_processes = 0.0
        self._next_folder = 0.0

    def excess(self) -> Ending | None:
        """The end of a runner that uses more than it may, or None."""
        now = time.monotonic()
        if now >= self._next_processes:
            ending = self._look_at_processes()
            self._next_processes = self._after(now)
            if ending is not None:
                return ending
        now = time.monotonic()
        if now >= self._next_folder:
            used = folder_bytes(self._folder, self._scratch)
            self._next_folder = self._after(now)
            if used > self._scratch:
                return endings.scratch_full(self._scratch)
        return None

    @staticmethod
    def _after(began: float) -> float:
        """The next look: late enough to take but a small share of the time."""
        now = time.monotonic()
        return now + max(_LOOK_SECONDS, (now - began) / _SHARE_OF_TIME)

    def _look_at_processes(self) -> Ending | None:
        memory = count = 0
        for process in _family(self._pid):
            with contextlib.suppress(psutil.Error):
                count += process.num_threads()
                memory += _own_memory(process.pid)
        if count > self._processes:
            return endings.too_many_processes(self._processes)
        if self._on_cpu and memory > self._memory:
            return endings.out_of_memory(self._memory)
        return None


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []  # it has ended


def _own_memory(pid: int) -> int:
    """Bytes that are no file's: anonymous pages and memory shared between processes."""
    total = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += 1024 * int(line.split()[1])
    return total


def folder_bytes(folder: Path, enough: int) -> int:
    """Bytes on disk below a folder, counted until they are more than `enough`.

    Files come and go meanwhile; links are not followed.
    """
    total, folders = 0, [folder]
    while folders and total <= enough:
        # a folder that is gone, or that the program closed to others
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += _BLOCK * entry.stat(follow_symlinks=False).st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
    return total
