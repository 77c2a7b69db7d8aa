"""Files that are there whole or not at all, and take no other file's place unasked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from secateur.errors import SecateurError


class FileExists(SecateurError):
    """There is a file where a new one was to be written."""


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A file to write; it appears at `path` when the block ends, and never after an error.

    Args:
        path: in a folder that exists.
        overwrite: whether it may take the place of a file that is there.

    Raises:
        FileExists: there is one and it may not.
        SecateurError: the folder cannot be written to.
    """
    if not overwrite and os.path.lexists(path):
        raise _exists(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise SecateurError(
            f"cannot write to {path.parent}: {error.strerror}", hint="choose another output file"
        ) from error
    part = Path(name)
    try:
        os.close(handle)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        if overwrite:
            part.replace(path)
        else:
            _take_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def _take_place(part: Path, path: Path) -> None:
    """Without overwriting what came there meanwhile."""
    try:
        path.hardlink_to(part)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise _exists(path) from None
        part.replace(path)


def _exists(path: Path) -> FileExists:
    return FileExists(f"{path} exists already", hint="name another file, or allow to overwrite it")


def _umask() -> int:
    """It can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
