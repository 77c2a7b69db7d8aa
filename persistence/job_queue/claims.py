"""Claims: who runs a job, until when, and with which fencing token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from persistence.job_queue.history import append_event, close_stages
from persistence.job_queue.outbox import poke
from persistence.job_queue.tokens import Claim, fence
from persistence.records import SEARCH, JobRecord, utc_now
from persistence.webhooks.announcements import announce_end

__all__ = ["Claim", "RenewResult", "claim", "database_time", "holds", "release", "renew"]


class RenewResult(Enum):
    """What a worker learns when it renews its lease."""

    HELD = "held"
    CANCELING = "canceling"
    """Still held, but the user wants the job stopped."""
    LOST = "lost"
    """Another attempt owns the job, or it ended; stop and write nothing."""


@dataclass(frozen=True)
class _Lease:
    now: datetime
    expires_at: datetime


def database_time(session: Session) -> datetime:
    """The time leases are counted in: the database's own, where it is shared by machines.

    Workers on several machines never compare their own clocks, so skew cannot expire a lease.
    SQLite serves one machine; its time is this process's.
    """
    if session.get_bind().dialect.name == "postgresql":
        moment = session.execute(select(func.clock_timestamp())).scalar_one()
        if not isinstance(moment, datetime):
            raise TypeError(f"the database's clock answered {moment!r}")
        return moment
    return utc_now()


def claim(session: Session, job_id: str, owner: str, lease_seconds: float) -> Claim | None:
    """Take a queued job; None when it is not there to be taken (any more).

    One conditional UPDATE: of any number of workers that were poked for the job, one gets it. A
    search is never claimed, for no worker runs it (`persistence.job_queue.trials`).
    """
    lease = _lease(session, lease_seconds)
    row = session.execute(
        update(JobRecord)
        .where(JobRecord.id == job_id, JobRecord.status == "queued", JobRecord.type != SEARCH)
        .values(
            status="running",
            attempt=JobRecord.attempt + 1,
            lease_owner=owner,
            lease_expires_at=lease.expires_at,
            started_at=func.coalesce(JobRecord.started_at, lease.now),
            stage=None,
            progress=None,
            version=JobRecord.version + 1,
        )
        .returning(JobRecord.attempt, JobRecord.tenant_id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    held = Claim(job_id=job_id, attempt=row.attempt, owner=owner, tenant_id=row.tenant_id)
    append_event(session, held, "started", {"attempt": held.attempt})
    return held


def renew(session: Session, held: Claim, lease_seconds: float) -> RenewResult:
    """Prolong the lease, and learn whether the job is wanted any longer."""
    status = session.execute(
        update(JobRecord)
        .where(fence(held))
        .values(lease_expires_at=_lease(session, lease_seconds).expires_at)
        .returning(JobRecord.status)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if status is None:
        return RenewResult.LOST
    return RenewResult.CANCELING if status == "canceling" else RenewResult.HELD


def holds(session: Session, held: Claim) -> bool:
    """Whether the token is still good; if so, it stays good until the transaction ends."""
    condition: ColumnElement[bool] = and_(fence(held))
    found = session.execute(select(JobRecord.id).where(condition).with_for_update())
    return found.scalar_one_or_none() is not None


def release(session: Session, held: Claim, reason: str) -> bool:
    """Give an unfinished job back to the queue at once, as a worker that shuts down does.

    It does not count against the attempt cap: nothing is wrong with the job.
    """
    if not holds(session, held):
        return False
    status = session.execute(
        select(JobRecord.status, JobRecord.queue).where(JobRecord.id == held.job_id)
    ).one()
    values: dict[str, Any] = {"lease_owner": None, "lease_expires_at": None}
    close_stages(session, held.job_id, "interrupted")
    if status.status == "canceling":
        append_event(session, held, "canceled", {})
        values |= {"status": "canceled", "finished_at": database_time(session)}
    else:
        append_event(session, held, "requeued", {"reason": reason, "attempt": held.attempt})
        values |= {"status": "queued", "stage": None, "progress": None}
        poke(session, held.job_id, status.queue)
    session.execute(
        update(JobRecord)
        .where(fence(held))
        .values(**values, version=JobRecord.version + 1)
        .execution_options(synchronize_session=False)
    )
    if status.status == "canceling":
        announce_end(session, held.job_id)
    return True


def _lease(session: Session, seconds: float) -> _Lease:
    now = database_time(session)
    return _Lease(now=now, expires_at=now + timedelta(seconds=seconds))
