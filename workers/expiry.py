"""What is kept for a time only: answers to requests that may be repeated."""

from __future__ import annotations

from datetime import timedelta

import structlog

from persistence import idempotency
from persistence.database import Database
from persistence.job_queue import database_time
from persistence.settings import Settings

log = structlog.get_logger()


def expire_once(database: Database, settings: Settings) -> None:
    """One pass; any number may run at once."""
    with database.session() as session:
        kept_since = database_time(session) - timedelta(seconds=settings.idempotency_seconds)
        forgotten = idempotency.forget(session, kept_since)
    if forgotten:
        log.info("idempotency keys forgotten", count=forgotten)
