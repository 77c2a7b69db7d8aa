"""The data folder of an embedded server: made private, and held by one server at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.embedded.problems import CannotStart


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder while the block runs.

    The lock is the operating system's, so it goes with its process however that ends.

    Raises:
        CannotStart: another server holds it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
            raise CannotStart(
                f"The data folder {folder} is in use by another server (process {holder}).",
                "Stop that server, or choose another folder with --data-dir.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
