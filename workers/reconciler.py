"""The reconciler: what dead workers and lost messages left behind is put right."""

from __future__ import annotations

import structlog

from persistence.database import Database
from persistence.job_queue import Reconciled, charge_running, database_time, reconcile, shares
from persistence.settings import Settings

log = structlog.get_logger()


def reconcile_once(database: Database, settings: Settings) -> Reconciled:
    """One pass over expired leases, times that are up, forgotten pokes and the shares of tenants;
    any number may run at once."""
    with database.session() as session:
        done = reconcile(
            session,
            database_time(session),
            max_attempts=settings.max_attempts,
            requeue_after_seconds=settings.requeue_after_seconds,
        )
    if done:
        log.info("reconciled", **vars(done))
    with database.session() as session:
        charge_running(session, database_time(session))
    with database.session(read_only=True) as session:
        found = shares.drifts(session)
    for drift in found:
        with database.session() as session:
            mended = shares.repair(session, drift)
        if mended:
            log.warning("the counts of a share were wrong; mended", **vars(drift))
    return done
