"""Local copies of blobs: verified when they come, the least recently used leave first.

Several processes of a machine may share the folder. A copy that was asked for lately stays, since
whoever asked may not have opened it yet.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from persistence.artifact_store.interface import is_hash

IN_USE_SECONDS = 600.0


@dataclass(frozen=True)
class BlobCache:
    """A folder of copies, and the folder `incoming` of files under way.

    Attributes:
        folder: where.
        max_bytes: what the copies take together, but for those in use.
        in_use_seconds: how long a copy stays after it was asked for.
    """

    folder: Path
    max_bytes: int
    in_use_seconds: float = IN_USE_SECONDS

    @property
    def incoming(self) -> Path:
        """Files that are being written."""
        return self.folder / "incoming"

    def make(self) -> None:
        """Make the folders where they are missing."""
        self.incoming.mkdir(parents=True, exist_ok=True)

    def temporary(self) -> Path:
        """A path for a file that `adopt` will take."""
        return self.incoming / secrets.token_hex(16)

    def find(self, sha256: str) -> Path | None:
        """The copy, which counts as used now."""
        path = self.folder / sha256
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def adopt(self, file: Path, sha256: str) -> Path:
        """Take a file whose bytes reached the disk and are known to be the blob's."""
        file.chmod(0o444)
        os.utime(file)
        path = file.replace(self.folder / sha256)
        self.evict()
        return path

    def forget(self, sha256: str) -> None:
        """Remove the copy."""
        (self.folder / sha256).unlink(missing_ok=True)

    def evict(self) -> None:
        """Remove copies until the rest fits."""
        copies = sorted(self._copies())
        total = sum(size for _, size, _ in copies)
        for used, size, path in copies:
            if total <= self.max_bytes or time.time() - used < self.in_use_seconds:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.iterdir():
            if is_hash(path.name):
                with contextlib.suppress(FileNotFoundError):  # another process evicted it
                    found = path.stat()
                    yield found.st_mtime, found.st_size, path
