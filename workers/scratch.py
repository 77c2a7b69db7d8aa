"""Scratch folders: one per attempt, gone when it ends, swept when its worker died.

```
<scratch>/<job>.<attempt>/
    lock        locked by the worker as long as it lives; a folder whose lock is free is stale
    job.json    what the runner is to do
    input/      copies of the model, the dataset and the checkpoint
    work/       everything the job writes
    home/ tmp/  HOME and TMPDIR of the runner
```

Inputs are copies, never links: the uploaded program runs under the worker's account and could
otherwise write into the artifact store.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FOLDERS = ("input", "work", "home", "tmp")


class NotAnArtifact(Exception):
    """A path the runner named is not a plain file of its work folder."""


@dataclass(frozen=True)
class Scratch:
    """The scratch folder of one attempt."""

    root: Path

    @property
    def job_file(self) -> Path:
        """Instructions of the runner."""
        return self.root / "job.json"

    @property
    def input(self) -> Path:
        """Copies of what the job reads."""
        return self.root / "input"

    @property
    def work(self) -> Path:
        """Everything the job writes."""
        return self.root / "work"

    @property
    def home(self) -> Path:
        """HOME of the runner."""
        return self.root / "home"

    @property
    def tmp(self) -> Path:
        """TMPDIR of the runner."""
        return self.root / "tmp"

    def open_produced(self, name: str) -> BinaryIO:
        """Open a file the runner made, below the work folder.

        Every component is opened without following links, so the file read is the file checked,
        whatever the runner does meanwhile.

        Raises:
            NotAnArtifact: the path leaves the folder, passes a link, or is no plain file.
        """
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or "\x00" in name:
            raise NotAnArtifact(f"{name!r} is not a path inside the work folder")
        folder = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts[:-1]:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            # O_NONBLOCK: opening a named pipe must not wait for its other end
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            opened = os.fdopen(os.open(parts[-1], flags, dir_fd=folder), "rb")
        except OSError as error:
            raise NotAnArtifact(f"{name!r} cannot be opened: {error.strerror}") from error
        finally:
            os.close(folder)
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            opened.close()
            raise NotAnArtifact(f"{name!r} is not a plain file of its own")
        return opened


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Scratch]:
    """Make a scratch folder, and remove it with all it holds at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    root = parent / name
    with _registry(parent):
        if root.exists():
            _remove(root)
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True, mode=0o700)
        lock = (root / "lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield Scratch(root)
    finally:
        _remove(root)
        lock.close()


def sweep(parent: Path) -> list[str]:
    """Remove the folders of workers that died; returns their names."""
    if not parent.is_dir():
        return []
    removed = []
    with _registry(parent):
        for root in sorted(parent.iterdir()):
            if root.is_dir() and _is_stale(root):
                _remove(root)
                removed.append(root.name)
    return removed


def _is_stale(root: Path) -> bool:
    lock = root / "lock"
    if not lock.exists():
        return True
    with lock.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextmanager
def _registry(parent: Path) -> Iterator[None]:
    # held while a folder comes to be, so that no sweep sees one that is not locked yet
    folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _remove(root: Path) -> None:
    for folder, inner, _files in os.walk(root):
        for name in inner:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o700)  # a program may have left folders that nobody may enter
    shutil.rmtree(root)
