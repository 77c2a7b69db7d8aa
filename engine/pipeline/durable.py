"""Files that are there whole or not at all, also when the machine stops in the midst of it.

A file is written beside its place, flushed to the disk and renamed, and the folder is flushed
after it: whoever opens the path sees the old file or the new one. Where writing fails nothing of
the new one stays, and the old one is untouched.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from safetensors import SafetensorError

from engine.errors import DiskFull

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What is said instead of an errno: by Rust's writers, and by torch, which only sees that the
# stream failed or stands elsewhere than it should.
_SAYINGS = (
    *("No space left on device", "Disk quota exceeded", "File too large"),
    *("iostream error", "unexpected pos"),
)


class NotWritten(OSError):
    """A file could not be written; says which, why, and how much room there was."""


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes take the place of the file when the block ends.

    Raises:
        NotWritten: the disk is full, a quota or a limit is reached, or it cannot be written to.
    """
    partial = path.with_name(f"{path.name}.partial")
    stream: _Remembering | None = None
    try:
        stream = _Remembering(partial)
        with stream:
            yield cast(BinaryIO, stream)
            os.fsync(stream.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        _remove(partial)
        # torch tells of its own positions in the file, and not of what the disk said
        fault = error if isinstance(error, OSError) else None if stream is None else stream.fault
        if fault is None:
            raise
        raise NotWritten(fault.errno, _explained(path, fault)) from error
    except BaseException:
        _remove(partial)
        raise


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Inside the block, a file that finds no room becomes the product's error.

    Args:
        folder: where the job writes.

    Raises:
        DiskFull: naming the folder and the free space.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        said = str(error)
        if getattr(error, "errno", None) not in _NO_ROOM and not any(
            saying in said for saying in _SAYINGS
        ):
            raise
        raise DiskFull(
            f"the disk is full: no room to write in `{folder}`, where {_free(folder)} are free",
            hint="make room there, or raise the limit on the size of files; the job can then be "
            "taken up from its last checkpoint",
            where=str(folder),
        ) from error


class _Remembering(io.FileIO):
    """A file that keeps the error of a write that failed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self.fault: OSError | None = None

    def write(self, data: object) -> int:
        """All of it; the plain file may take a part."""
        left = memoryview(data).cast("B")  # type: ignore[arg-type]
        written = len(left)
        try:
            while left:
                left = left[super().write(left) :]
        except OSError as error:
            self.fault = error
            raise
        return written


def _explained(path: Path, fault: OSError) -> str:
    reason = fault.strerror or str(fault)
    if fault.errno not in _NO_ROOM:
        return f"`{path}` cannot be written: {reason}"
    return f"no room for `{path}` ({reason}); {_free(path.parent)} are free there"


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB"
    except OSError:
        return "an unknown number of bytes"


def _remove(partial: Path) -> None:
    # A folder that is gone or cannot be written to has nothing half-written that could be removed.
    try:
        partial.unlink(missing_ok=True)
    except OSError:
        return


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
