"""A full disk of running jobs: no fault of the job, and over when somebody makes room."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from persistence.artifact_store import StoreUnavailable

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_LITTLE = 1 << 20


def lacks_room(error: OSError) -> bool:
    """Whether a disk or a quota is used up."""
    return error.errno in _NO_ROOM


def disk_is_full(folder: Path) -> bool:
    """Whether less than a mebibyte is free where the folder lies."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize < _LITTLE


@contextmanager
def room_as_outage(what: str) -> Iterator[None]:
    """Turn what a full disk says into what a store says that is away: both are waited for.

    Raises:
        StoreUnavailable: there was no room.
    """
    try:
        yield
    except StoreUnavailable:
        raise
    except OSError as error:
        if not lacks_room(error):
            raise
        raise StoreUnavailable(
            what, hint="Make room on the worker's disk.", number=error.errno or errno.ENOSPC
        ) from error
