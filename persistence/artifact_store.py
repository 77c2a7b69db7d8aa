"""Files by content: models, datasets and what jobs produced.

A blob is named by the SHA-256 of its bytes, so the same bytes are kept once, a download can be
checked, and a half-written file is never seen: a writer works in a temporary file and moves it to
its name in one step after the bytes reached the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from persistence.settings import settings

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredBlob:
    """A blob that reached the store."""

    sha256: str
    bytes: int


class BlobWriter(Protocol):
    """Takes the bytes of one blob; used as a context manager it aborts unless committed."""

    @property
    def bytes_written(self) -> int:
        """Bytes taken so far."""

    def write(self, data: bytes) -> None:
        """Append bytes."""

    def commit(self) -> StoredBlob:
        """Make the blob durable and visible."""

    def abort(self) -> None:
        """Leave nothing behind; does nothing after a commit."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ArtifactStore(Protocol):
    """Where blobs live. All methods that take a hash raise FileNotFoundError when it is absent,
    but for `exists` and `delete`."""

    def open_writer(self) -> BlobWriter:
        """Start a new blob."""

    def open(self, sha256: str) -> BinaryIO:
        """The blob for reading, seekable."""

    def path(self, sha256: str) -> Path:
        """A local file with the blob's bytes; read it, never write it."""

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""

    def delete(self, sha256: str) -> None:
        """Remove the blob; nothing happens when it is absent."""

    def size(self, sha256: str) -> int:
        """Bytes of the blob."""

    def age_seconds(self, sha256: str) -> float:
        """Time since the blob was last written; infinite when it is absent."""

    def blobs(self) -> Iterator[str]:
        """The hashes of all blobs, in no order."""

    def remove_abandoned_writes(self, min_age_seconds: float) -> None:
        """Remove what writers that died left behind, if it is older than that."""


class LocalBlobWriter:
    """Writer into one temporary file of a `LocalArtifactStore`."""

    def __init__(self, store: LocalArtifactStore) -> None:
        self._store = store
        self._temporary = store.incoming / secrets.token_hex(16)
        self._hash = hashlib.sha256()
        self._written = 0
        self._closed = False
        self._file = self._temporary.open("xb")

    @property
    def bytes_written(self) -> int:
        """Bytes taken so far."""
        return self._written

    def write(self, data: bytes) -> None:
        """Append bytes to the temporary file and to the hash."""
        self._file.write(data)
        self._hash.update(data)
        self._written += len(data)

    def commit(self) -> StoredBlob:
        """Flush to the disk, then rename to the name of the content."""
        if self._closed:
            raise ValueError("this blob was already committed or aborted")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.chmod(0o444)
        sha256 = self._hash.hexdigest()
        target = self._store.location(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        # replaces an equal file when there is one: same name, same bytes
        self._temporary.replace(target)
        _sync_folder(target.parent)
        self._closed = True
        return StoredBlob(sha256=sha256, bytes=self._written)

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._closed:
            return
        self._closed = True
        self._file.close()
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
        self.incoming.mkdir(parents=True, exist_ok=True)

    def open_writer(self) -> LocalBlobWriter:
        """Start a new blob."""
        return LocalBlobWriter(self)

    def location(self, sha256: str) -> Path:
        """Where the blob lies or would lie."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"not a lower-case hexadecimal SHA-256: {sha256!r}")
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def open(self, sha256: str) -> BinaryIO:
        """The blob for reading."""
        return self.location(sha256).open("rb")

    def path(self, sha256: str) -> Path:
        """The blob's own file, read-only."""
        path = self.location(sha256)
        if not path.is_file():
            raise FileNotFoundError(f"no blob {sha256} in the artifact store {self.root}")
        return path

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""
        return self.location(sha256).is_file()

    def delete(self, sha256: str) -> None:
        """Remove the blob."""
        self.location(sha256).unlink(missing_ok=True)

    def size(self, sha256: str) -> int:
        """Bytes of the blob."""
        return self.path(sha256).stat().st_size

    def age_seconds(self, sha256: str) -> float:
        """Time since the blob was last written."""
        try:
            return time.time() - self.location(sha256).stat().st_mtime
        except FileNotFoundError:
            return math.inf

    def blobs(self) -> Iterator[str]:
        """The hashes of all blobs."""
        for path in self.root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"):
            if _SHA256.fullmatch(path.name):
                yield path.name

    def remove_abandoned_writes(self, min_age_seconds: float) -> None:
        """Remove old temporary files."""
        for path in self.incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a writer just ended
                if time.time() - path.stat().st_mtime >= min_age_seconds:
                    path.unlink()


def store_file(store: ArtifactStore, source: BinaryIO) -> StoredBlob:
    """Copy an open file into the store, in constant memory."""
    with store.open_writer() as writer:
        while chunk := source.read(_COPY_BYTES):
            writer.write(chunk)
        return writer.commit()


def fetch_file(store: ArtifactStore, sha256: str, target: Path) -> None:
    """Copy a blob to a local file of its own, which may then be changed without harm."""
    with store.open(sha256) as source, target.open("xb") as out:
        shutil.copyfileobj(source, out, _COPY_BYTES)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@lru_cache
def artifact_store() -> ArtifactStore:
    """The artifact store of this process, from the settings."""
    return LocalArtifactStore(settings().resolved_artifact_dir)
