"""A disk that can be filled: a small file system in memory, which only root can mount."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MEBIBYTE = bytes(1 << 20)


@dataclass(frozen=True)
class SmallDisk:
    """The disk.

    Attributes:
        root: its folder.
    """

    root: Path

    @property
    def _filler(self) -> Path:
        return self.root / ".filler"

    def fill(self) -> None:
        """Leave not a byte."""
        with self._filler.open("wb", buffering=0) as file:
            size = len(_MEBIBYTE)
            while size:
                try:
                    file.write(_MEBIBYTE[:size])
                except OSError:
                    size //= 2  # what is left may be less

    def empty(self) -> None:
        """Take away what `fill` wrote."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size: str = "96m") -> Iterator[SmallDisk]:
    """Mount it until the block ends.

    Raises:
        RuntimeError: it cannot be mounted here; a campaign without it would try nothing.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a full disk needs root, to mount one: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        unmount = ["umount", "--lazy", str(folder)]
        subprocess.run(unmount, check=True)
