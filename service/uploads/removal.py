"""Taking a blob out of the store once nobody needs it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from persistence import blobs
from persistence.artifact_store import ArtifactStore, StoredBlob, StoreUnavailable
from persistence.database import Database
from service.context import Backend
from service.logs import logger
from service.uploads.problems import UploadInterfered

_log = logger("secateur.store")


def stored_file(backend: Backend, blob: StoredBlob) -> Path:
    """The file of a blob that has just arrived.

    Raises:
        UploadInterfered: another request deleted the same bytes in the meantime.
    """
    try:
        return backend.store.path(blob.sha256)
    except FileNotFoundError as error:
        raise UploadInterfered from error


def remove_if_unreferenced(database: Database, store: ArtifactStore, sha256: str) -> bool:
    """Delete the blob unless a row of any tenant names it; returns whether it was deleted.

    Runs in a transaction of its own, after the row that named the blob is gone for good: a crash
    between the two leaves a blob too many, never a row without its bytes. So does a store that
    does not answer; the sweep removes the blob later.
    """
    try:
        with database.session() as session:
            blobs.lock(session, sha256)
            if blobs.is_referenced(session, sha256):
                return False
            store.delete(sha256)
            return True
    except StoreUnavailable as error:
        _log.warning("a blob was not removed", sha256=sha256, reason=error.reason)
        return False


@dataclass(frozen=True)
class Arrival:
    """An uploaded file and when, at the latest, it was written: so that another arrival of the same
    bytes can be told from it."""

    sha256: str
    written_before: float

    @classmethod
    def of(cls, store: ArtifactStore, sha256: str) -> Arrival:
        """What has just arrived."""
        age = store.age_seconds(sha256)
        return cls(sha256, time.time() - age)


def remove_arrival(database: Database, store: ArtifactStore, arrival: Arrival) -> bool:
    """Delete an uploaded file that has been copied, unless a row names it or the same bytes have
    arrived again since: who brought them still needs them, and removes them then."""
    now = time.time()  # before the age is read: at the earliest it was written that long ago
    if now - store.age_seconds(arrival.sha256) > arrival.written_before:
        return False
    return remove_if_unreferenced(database, store, arrival.sha256)
