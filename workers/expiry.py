"""What is kept for a time only: uploads that nobody completes, answers to requests that may be
repeated, checkpoints of jobs that did not succeed, the log of changes."""

from __future__ import annotations

from datetime import timedelta

import structlog

from persistence import audit, idempotency, uploads
from persistence.artifact_store import ArtifactStore
from persistence.database import Database
from persistence.job_queue import database_time, forget_checkpoints
from persistence.settings import Settings
from workers.blob_sweep import discard

log = structlog.get_logger()

_BATCH = 20
_FORGET_AFTER = timedelta(days=1)


def expire_once(database: Database, store: ArtifactStore, settings: Settings) -> None:
    """One pass; any number may run at once."""
    while _abort_uploads(database, store) == _BATCH:
        pass
    with database.session() as session:
        now = database_time(session)
        kept_since = now - timedelta(seconds=settings.idempotency_seconds)
        keys = idempotency.forget(session, kept_since)
        ended = uploads.forget_ended(session, now)
        entries = audit.forget(session, now - timedelta(days=settings.audit_log_days))
    with database.session() as session:
        ended_before = database_time(session) - timedelta(seconds=settings.checkpoint_keep_seconds)
        checkpoints = forget_checkpoints(session, ended_before)
    if checkpoints:
        log.info("checkpoints of ended jobs forgotten", files=checkpoints)
    if keys or ended or entries:
        log.info("forgotten", idempotency_keys=keys, uploads=ended, audit_entries=entries)


def _abort_uploads(database: Database, store: ArtifactStore) -> int:
    """End uploads whose time is over and delete their parts; returns how many."""
    parts: list[str] = []
    with database.session() as session:
        now = database_time(session)
        found = uploads.expired(session, now, _BATCH)
        for record in found:
            parts += [part.sha256 for part in uploads.parts(session, record)]
            uploads.end(session, record, "aborted", forget_at=now + _FORGET_AFTER)
    for sha256 in dict.fromkeys(parts):
        discard(database, store, sha256)
    if found:
        log.info("uploads expired", count=len(found), parts=len(parts))
    return len(found)
