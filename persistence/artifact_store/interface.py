"""What a store and its writers do, whatever is behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

_SHA256 = re.compile(r"[0-9a-f]{64}")


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
        """Make the blob durable and visible, in one step; the same bytes twice are one blob."""

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
    """Where blobs live.

    Raises:
        FileNotFoundError: the blob is absent; from all methods that take a hash, but for `exists`,
            `delete` and `age_seconds`.
        StoreUnavailable: the store does not answer; from all methods, and from writers and readers.
        ValueError: the hash is none.
    """

    def check(self) -> None:
        """Look whether blobs can be stored and read."""

    def open_writer(self) -> BlobWriter:
        """Start a new blob."""

    def open(self, sha256: str) -> BinaryIO:
        """The blob for reading, seekable."""

    def path(self, sha256: str) -> Path:
        """A local file with the blob's bytes; read it within minutes, never write it."""

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

    def download_url(self, sha256: str, *, media_type: str, disposition: str | None) -> str | None:
        """An address from which anybody can read the blob for a short time; None where the store
        gives none.

        Args:
            sha256: which.
            media_type: `Content-Type` of the answer.
            disposition: its `Content-Disposition`.
        """


def is_hash(name: str) -> bool:
    """Whether the name is a lower-case hexadecimal SHA-256."""
    return _SHA256.fullmatch(name) is not None


def place(sha256: str) -> str:
    """`ab/cd/abcd...`: where a blob lies, below a folder or a prefix.

    Both stores use it, so a folder can be copied into a bucket and back.
    """
    if not is_hash(sha256):
        raise ValueError(f"not a lower-case hexadecimal SHA-256: {sha256!r}")
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"
