"""The reconciler: what dead workers and lost messages left behind is put right."""

from __future__ import annotations

import structlog

from persistence.database import Database
from persistence.job_queue import Reconciled, database_time, reconcile
from persistence.settings import Settings

log = structlog.get_logger()


def reconcile_once(database: Database, settings: Settings) -> Reconciled:
    """One pass over expired leases and forgotten pokes; any number may run at once."""
    with database.session() as session:
        done = reconcile(
            session,
            database_time(session),
            max_attempts=settings.max_attempts,
            requeue_after_seconds=settings.requeue_after_seconds,
        )
    if done:
        log.info(
            "reconciled",
            requeued=done.requeued,
            failed=done.failed,
            canceled=done.canceled,
            poked=done.poked,
        )
    return done
