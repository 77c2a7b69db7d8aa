"""Reading an object: seekable, in pieces that grow while the reading goes straight on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

from persistence.artifact_store.errors import BlobDamaged

SMALLEST_PIECE = 256 * 2**10
LARGEST_PIECE = 4 * 2**20
"""What a reader holds in memory at most."""


class BlobReader(io.RawIOBase):
    """A blob of a bucket as a file.

    What is read from the first byte to the last, in order, is hashed on the way; when it is not
    what the name says, the read that reaches the end fails.

    Args:
        sha256: of the blob.
        size: of the blob, in bytes.
        fetch: gives the bytes between two positions.
    """

    def __init__(
        self, sha256: str, size: int, fetch: Callable[[int, int], bytes | bytearray]
    ) -> None:
        super().__init__()
        self._sha256 = sha256
        self._size = size
        self._fetch = fetch
        self._position = 0
        self._piece: bytes | bytearray = b""
        self._piece_start = 0
        self._next_bytes = SMALLEST_PIECE
        self._hash = hashlib.sha256()
        self._hashed = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there; nothing is fetched yet."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read into the buffer what is at hand, at least a byte unless this is the end.

        Raises:
            BlobDamaged: the blob was read whole and is another.
            FileNotFoundError: the blob was deleted meanwhile.
            StoreUnavailable: the store does not answer.
        """
        if not len(buffer) or self._position >= self._size:
            return 0
        if not self._piece_start <= self._position < self._piece_start + len(self._piece):
            self._fill()
        begin = self._position - self._piece_start
        found = memoryview(self._piece)[begin : begin + len(buffer)]
        buffer[: len(found)] = found
        self._check(found)
        self._position += len(found)
        return len(found)

    def _fill(self) -> None:
        straight_on = self._position == self._piece_start + len(self._piece)
        self._next_bytes = (
            min(LARGEST_PIECE, 2 * self._next_bytes)
            if straight_on and self._piece
            else SMALLEST_PIECE
        )
        end = min(self._size, self._position + self._next_bytes)
        self._piece = b""  # not two pieces at a time
        self._piece = self._fetch(self._position, end)
        self._piece_start = self._position

    def _check(self, found: memoryview) -> None:
        """Hash what goes further than what was hashed before."""
        end = self._position + len(found)
        if self._position <= self._hashed < end:
            self._hash.update(found[self._hashed - self._position :])
            self._hashed = end
            if end == self._size and self._hash.hexdigest() != self._sha256:
                raise BlobDamaged(self._sha256)
