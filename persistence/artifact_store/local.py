"""Blobs as files of a folder.

A writer works in a temporary file and moves it to its name in one step, after the bytes reached
the disk; the folders on the way to it are flushed as well, so that a name that was reported
survives a loss of power.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from persistence.artifact_store.errors import StoreUnavailable, folder_errors
from persistence.artifact_store.interface import StoredBlob, is_hash, place

_HINT = "Check that SECATEUR_ARTIFACT_DIR is there, writable and not full."


def _typed(*, absent: bool = False) -> AbstractContextManager[None]:
    return folder_errors("the artifact folder cannot be used", _HINT, absent=absent)


class LocalBlobWriter:
    """Writer into one temporary file of a `LocalArtifactStore`."""

    def __init__(self, store: LocalArtifactStore) -> None:
        self._store = store
        self._temporary = store.incoming / secrets.token_hex(16)
        self._hash = hashlib.sha256()
        self._written = 0
        self._closed = False
        with _typed():
            self._file = self._temporary.open("xb")

    @property
    def bytes_written(self) -> int:
        """Bytes taken so far."""
        return self._written

    def write(self, data: bytes) -> None:
        """Append bytes to the temporary file and to the hash."""
        with _typed():
            self._file.write(data)
        self._hash.update(data)
        self._written += len(data)

    def commit(self) -> StoredBlob:
        """Flush to the disk, then rename to the name of the content."""
        if self._closed:
            raise ValueError("this blob was already committed or aborted")
        sha256 = self._hash.hexdigest()
        target = self._store.location(sha256)
        with _typed():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.chmod(0o444)
            target.parent.mkdir(parents=True, exist_ok=True)
            # replaces an equal file when there is one: same name, same bytes
            self._temporary.replace(target)
            # another writer may have made the upper two and not flushed them yet
            for folder in (target.parent, target.parent.parent, self._store.root):
                _sync_folder(folder)
        self._closed = True
        return StoredBlob(sha256=sha256, bytes=self._written)

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # on a full disk closing tries once more to write
            self._file.close()
        with _typed():
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()


class LocalArtifactStore:
    """Blobs in a folder, at `ab/cd/abcd...`; writers work in `incoming/`.

    Several processes and machines may share the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        with _typed():
            self.incoming.mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        """Write a file, and take it away again."""
        with self.open_writer() as writer:
            writer.write(b"ready?")

    def open_writer(self) -> LocalBlobWriter:
        """Start a new blob."""
        return LocalBlobWriter(self)

    def location(self, sha256: str) -> Path:
        """Where the blob lies or would lie."""
        return self.root / place(sha256)

    def open(self, sha256: str) -> BinaryIO:
        """The blob for reading."""
        path = self.path(sha256)
        with _typed(absent=True):
            return path.open("rb")

    def path(self, sha256: str) -> Path:
        """The blob's own file, read-only."""
        found = self._present(sha256)
        if found is None:
            raise FileNotFoundError(f"no blob {sha256} in the artifact store")
        return found

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""
        return self._present(sha256) is not None

    def delete(self, sha256: str) -> None:
        """Remove the blob."""
        with _typed():
            self.location(sha256).unlink(missing_ok=True)

    def size(self, sha256: str) -> int:
        """Bytes of the blob."""
        path = self.path(sha256)
        with _typed(absent=True):
            return path.stat().st_size

    def age_seconds(self, sha256: str) -> float:
        """Time since the blob was last written."""
        found = self._present(sha256)
        with contextlib.suppress(FileNotFoundError), _typed(absent=True):
            return math.inf if found is None else time.time() - found.stat().st_mtime
        return math.inf

    def blobs(self) -> Iterator[str]:
        """The hashes of all blobs."""
        for path in self.root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"):
            if is_hash(path.name):
                yield path.name

    def remove_abandoned_writes(self, min_age_seconds: float) -> None:
        """Remove old temporary files."""
        with _typed():
            remove_old_files(self.incoming, min_age_seconds)

    def download_url(
        self,
        sha256: str,  # noqa: ARG002 - the interface's
        *,
        media_type: str,  # noqa: ARG002
        disposition: str | None,  # noqa: ARG002
    ) -> str | None:
        """A folder has no address."""
        return None

    def _present(self, sha256: str) -> Path | None:
        """The blob's file. A folder that is gone, as when a network share is not mounted, holds
        no blob, and that is not the same as a blob that was deleted."""
        path = self.location(sha256)
        with _typed():
            if path.is_file():
                return path
            if self.incoming.is_dir():
                return None
        raise StoreUnavailable("the artifact folder is not there", hint=_HINT)


def remove_old_files(folder: Path, min_age_seconds: float) -> None:
    """Remove the files of a folder that were last written to so long ago."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a writer just ended
            if time.time() - path.stat().st_mtime >= min_age_seconds:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
