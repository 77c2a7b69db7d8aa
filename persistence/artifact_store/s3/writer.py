"""A blob on its way into a bucket: first a local file, then one upload."""

from __future__ import annotations

import contextlib
import hashlib
import os
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from persistence.artifact_store.errors import folder_errors
from persistence.artifact_store.interface import StoredBlob
from persistence.artifact_store.s3.upload import upload

if TYPE_CHECKING:
    from persistence.artifact_store.s3.store import S3ArtifactStore

_HINT = "Check that SECATEUR_ARTIFACT_CACHE_DIR is there, writable and not full."


def cache_errors(*, absent: bool = False) -> AbstractContextManager[None]:
    """The system's errors about the folder of local copies, as ours; see `folder_errors`."""
    return folder_errors("the folder of local copies cannot be used", _HINT, absent=absent)


class S3BlobWriter:
    """Takes the bytes into a file beside the local copies, which `commit` uploads."""

    def __init__(self, store: S3ArtifactStore) -> None:
        self._store = store
        self._temporary = store.cache.temporary()
        self._hash = hashlib.sha256()
        self._written = 0
        self._closed = False
        with cache_errors():
            store.cache.make()
            self._file = self._temporary.open("x+b")

    @property
    def bytes_written(self) -> int:
        """Bytes taken so far."""
        return self._written

    def write(self, data: bytes) -> None:
        """Append bytes to the file and to the hash."""
        with cache_errors():
            self._file.write(data)
        self._hash.update(data)
        self._written += len(data)

    def commit(self) -> StoredBlob:
        """Upload; the file becomes the local copy."""
        if self._closed:
            raise ValueError("this blob was already committed or aborted")
        sha256 = self._hash.hexdigest()
        with cache_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
        upload(
            self._store.bucket,
            self._store.key(sha256),
            self._file,
            self._written,
            part_bytes=self._store.part_bytes,
        )
        self._closed = True
        self._file.close()
        try:
            self._store.cache.adopt(self._temporary, sha256)
        except OSError:  # the blob is stored; without a copy it is fetched when it is needed
            self._temporary.unlink(missing_ok=True)
        return StoredBlob(sha256=sha256, bytes=self._written)

    def abort(self) -> None:
        """Remove the file."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # on a full disk closing tries once more to write
            self._file.close()
        with cache_errors():
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
