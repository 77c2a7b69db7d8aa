"""Blobs that no row names any longer: replaced checkpoints, and what crashed writers left.

A writer stores a blob first and names it in a row afterwards, so a blob without a row may be on
its way. The sweep leaves young ones alone, and whoever writes a row takes the blob's lock and
looks whether the blob is still there.
"""

from __future__ import annotations

import structlog

from persistence import blobs
from persistence.artifact_store import ArtifactStore, StoreUnavailable
from persistence.database import Database

MIN_AGE_SECONDS = 3600.0
log = structlog.get_logger()


def remove_if_unneeded(
    database: Database, store: ArtifactStore, sha256: str, *, min_age_seconds: float
) -> bool:
    """Delete one blob unless a row names it or it is younger than that; returns whether."""
    with database.session(read_only=True) as session:
        if blobs.is_referenced(session, sha256):
            return False  # nearly always, and seen without a lock
    with database.session() as session:
        blobs.lock(session, sha256)
        if blobs.is_referenced(session, sha256) or store.age_seconds(sha256) < min_age_seconds:
            return False
        store.delete(sha256)
        return True


def discard(database: Database, store: ArtifactStore, sha256: str) -> None:
    """Delete one blob unless a row names it; left to the sweep when the store is away."""
    try:
        remove_if_unneeded(database, store, sha256, min_age_seconds=0)
    except StoreUnavailable as error:
        log.warning("a blob was not removed", sha256=sha256, reason=error.reason)


def sweep_blobs(
    database: Database, store: ArtifactStore, *, min_age_seconds: float = MIN_AGE_SECONDS
) -> int:
    """Delete all blobs that nobody needs; returns how many."""
    store.remove_abandoned_writes(24 * MIN_AGE_SECONDS)
    return sum(
        remove_if_unneeded(database, store, sha256, min_age_seconds=min_age_seconds)
        for sha256 in store.blobs()
    )
