"""What goes wrong with a store. Messages are for users: no addresses, no credentials."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class StoreUnavailable(OSError):
    """The store does not answer, refuses, or is full. Nothing was half done; it may work later.

    Args:
        reason: what is wrong.
        hint: what the operator should look at.
        number: the error number of the system, where there is one.
    """

    def __init__(self, reason: str, *, hint: str = "", number: int = errno.EIO) -> None:
        super().__init__(number, reason)
        self.reason = reason
        self.hint = hint


class BlobDamaged(OSError):
    """The store holds, or the network brought, other bytes than the blob's name says."""

    def __init__(self, sha256: str) -> None:
        super().__init__(errno.EIO, f"the stored bytes of {sha256} are not those of its name")
        self.sha256 = sha256


@contextmanager
def folder_errors(what: str, hint: str, *, absent: bool = False) -> Iterator[None]:
    """Turn the system's errors about a folder into StoreUnavailable.

    Args:
        what: begins the message.
        hint: what the operator should look at.
        absent: let FileNotFoundError pass: the file was a blob, and is gone.
    """
    try:
        yield
    except (StoreUnavailable, BlobDamaged):
        raise
    except OSError as error:
        if absent and isinstance(error, FileNotFoundError):
            raise
        reason = error.strerror or type(error).__name__
        number = error.errno or errno.EIO
        raise StoreUnavailable(f"{what}: {reason}", hint=hint, number=number) from error
