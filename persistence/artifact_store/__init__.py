"""Files by content: models, datasets and what jobs produced.

A blob is named by the SHA-256 of its bytes, so the same bytes are kept once, a download can be
checked, and a half-written file is never seen. There are two stores, a folder and a bucket of an
object store that speaks S3; the settings choose, and one suite of tests holds for both.
"""

from persistence.artifact_store.copying import fetch_file, store_file
from persistence.artifact_store.errors import BlobDamaged, StoreUnavailable
from persistence.artifact_store.interface import ArtifactStore, BlobWriter, StoredBlob
from persistence.artifact_store.local import LocalArtifactStore, LocalBlobWriter
from persistence.artifact_store.selection import artifact_store, open_store

__all__ = [
    "ArtifactStore",
    "BlobDamaged",
    "BlobWriter",
    "LocalArtifactStore",
    "LocalBlobWriter",
    "StoreUnavailable",
    "StoredBlob",
    "artifact_store",
    "fetch_file",
    "open_store",
    "store_file",
]
