"""Whole files into a store and out of it, in constant memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from persistence.artifact_store.errors import BlobDamaged
from persistence.artifact_store.interface import ArtifactStore, StoredBlob

_COPY_BYTES = 1 << 20
_READS = 2
"""Damage on the way is gone the second time; damage in the store is not."""


def store_file(store: ArtifactStore, source: BinaryIO) -> StoredBlob:
    """Copy an open file into the store."""
    with store.open_writer() as writer:
        while chunk := source.read(_COPY_BYTES):
            writer.write(chunk)
        return writer.commit()


def fetch_file(store: ArtifactStore, sha256: str, target: Path) -> None:
    """Copy a blob to a local file of its own, which may then be changed without harm.

    The copy has the blob's bytes, or is not there.

    Raises:
        FileNotFoundError: there is no such blob.
        BlobDamaged: the store holds other bytes under this name.
        StoreUnavailable: the store does not answer.
    """
    for attempt in range(1, _READS + 1):
        try:
            with store.open(sha256) as source, target.open("xb") as out:
                try:
                    _copy(source, out, sha256)
                except BaseException:
                    target.unlink()
                    raise
            return
        except BlobDamaged:
            if attempt == _READS:
                raise


def _copy(source: BinaryIO, out: BinaryIO, sha256: str) -> None:
    digest = hashlib.sha256()
    while chunk := source.read(_COPY_BYTES):
        digest.update(chunk)
        out.write(chunk)
    if digest.hexdigest() != sha256:
        raise BlobDamaged(sha256)
