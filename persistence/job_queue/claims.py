"""Claims: who runs a job, until when, and with which fencing token."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from persistence.job_queue import shares
from persistence.job_queue.clocks import Standing, database_time, standing
from persistence.job_queue.completion import settle
from persistence.job_queue.history import append_event, close_stages
from persistence.job_queue.outbox import poke
from persistence.job_queue.tokens import Claim, fence, holds
from persistence.records import SEARCH, JobRecord


class RenewResult(Enum):
    """What a worker learns when it renews its lease."""

    HELD = "held"
    CANCELING = "canceling"
    """Still held, but the user wants the job stopped."""
    LOST = "lost"
    """Another attempt owns the job, or it ended; stop and write nothing."""


def claim(session: Session, job_id: str, owner: str, lease_seconds: float) -> Claim | None:
    """Take this queued job, whoever's turn it is; None when it is not there to be taken.

    Of any number of workers that want the job, one gets it. A search is never claimed, for no
    worker runs it (`persistence.job_queue.trials`). Workers use `turns.claim_next`.
    """
    query = Standing.query().where(
        JobRecord.id == job_id, JobRecord.status == "queued", JobRecord.type != SEARCH
    )
    row = session.execute(query.with_for_update()).one_or_none()
    if row is None:
        return None
    return hand_out(session, Standing.of(row), owner, lease_seconds, database_time(session))


def hand_out(
    session: Session, job: Standing, owner: str, lease_seconds: float, now: datetime
) -> Claim:
    """Give a queued job, whose row the caller holds, to a worker."""
    values = job.stopped(now) | {"charged_seconds": shares.ADVANCE_SECONDS}
    attempt = session.execute(
        update(JobRecord)
        .where(JobRecord.id == job.id)
        .values(
            status="running",
            attempt=JobRecord.attempt + 1,
            lease_owner=owner,
            lease_expires_at=now + timedelta(seconds=lease_seconds),
            started_at=func.coalesce(JobRecord.started_at, now),
            stage=None,
            progress=None,
            version=JobRecord.version + 1,
            expires_at=job.deadline,
            **values,
        )
        .returning(JobRecord.attempt)
        .execution_options(synchronize_session=False)
    ).scalar_one()
    shares.claimed(session, job)
    deadline = job.deadline
    held = Claim(
        job_id=job.id,
        attempt=attempt,
        owner=owner,
        tenant_id=job.tenant_id,
        ran_seconds=job.ran_seconds,
        max_run_seconds=job.max_run_seconds,
        deadline=deadline,
        deadline_in=None if deadline is None else (deadline - now).total_seconds(),
    )
    append_event(session, held, "started", {"attempt": attempt})
    return held


def renew(session: Session, held: Claim, lease_seconds: float) -> RenewResult:
    """Prolong the lease, and learn whether the job is wanted any longer."""
    expires_at = database_time(session) + timedelta(seconds=lease_seconds)
    status = session.execute(
        update(JobRecord)
        .where(fence(held))
        .values(lease_expires_at=expires_at)
        .returning(JobRecord.status)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    if status is None:
        return RenewResult.LOST
    return RenewResult.CANCELING if status == "canceling" else RenewResult.HELD


def release(session: Session, held: Claim, reason: str) -> bool:
    """Give an unfinished job back to the queue at once, as a worker that shuts down does.

    It does not count against the attempt cap: nothing is wrong with the job.
    """
    if not holds(session, held):
        return False
    job = standing(session, held.job_id)
    if job.status == "canceling":
        settle(session, held.job_id, "canceled")
        return True
    append_event(session, held, "requeued", {"reason": reason, "attempt": held.attempt})
    requeue(session, job, database_time(session))
    return True


def requeue(session: Session, job: Standing, now: datetime) -> None:
    """The attempt of a running job, whose row the caller holds, ended; the job waits again."""
    close_stages(session, job.id, "interrupted")
    session.execute(
        update(JobRecord)
        .where(JobRecord.id == job.id)
        .values(
            status="queued",
            stage=None,
            progress=None,
            lease_owner=None,
            lease_expires_at=None,
            version=JobRecord.version + 1,
            expires_at=job.waits_until(now),
            **job.stopped(now),
        )
        .execution_options(synchronize_session=False)
    )
    poke(session, job.id, job.queue)
    shares.returned(session, job, now)
