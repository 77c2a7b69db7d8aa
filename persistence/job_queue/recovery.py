"""Recovery: jobs whose worker died, whose time is up, and whose poke got lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from persistence.job_queue import shares
from persistence.job_queue.claims import requeue
from persistence.job_queue.clocks import Standing, expiry, ran_too_long
from persistence.job_queue.completion import settle
from persistence.job_queue.history import append_event
from persistence.job_queue.outbox import forget_settled, poke
from persistence.job_queue.trials import is_stalled
from persistence.records import SEARCH, EventRecord, JobRecord, OutboxRecord
from persistence.settings import settings

_BATCH = 200
_LONGEST_WAIT = timedelta(hours=1)
_WITH_WORKER = ("running", "canceling")


@dataclass
class Reconciled:
    """Ids of the jobs a reconciliation touched."""

    requeued: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    poked: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        touched = self.requeued, self.failed, self.canceled, self.expired, self.poked
        return any(touched)


def reconcile(
    session: Session,
    now: datetime,
    *,
    max_attempts: int | None = None,
    requeue_after_seconds: float | None = None,
) -> Reconciled:
    """Put right what dead workers, lost messages and the passing of time left behind.

    A job whose lease expired goes back to the queue, or fails with `attempts-exhausted` when as
    many attempts died; one that was being canceled is canceled, one past its deadline or its
    running time ends. A waiting job past its deadline or its wait expires. A queued job
    that was poked long ago is poked again, each time after twice the wait (a full queue is no lost
    message), and so is a search that has not seen the end of a trial.

    Args:
        session: the transaction.
        now: the time leases and limits are compared with; see `database_time`.
        max_attempts: from the settings when left out.
        requeue_after_seconds: from the settings when left out.
    """
    cap = settings().max_attempts if max_attempts is None else max_attempts
    patience = (
        settings().requeue_after_seconds if requeue_after_seconds is None else requeue_after_seconds
    )
    done = Reconciled()
    for job, lease_expired_at in _due(session, now):
        error = expiry(job, now)
        if job.status == "canceling":
            settle(session, job.id, "canceled", now=lease_expired_at)
            done.canceled.append(job.id)
        elif error is not None:
            settle(session, job.id, "expired", error=error, now=lease_expired_at or now)
            done.expired.append(job.id)
        elif lease_expired_at is not None:
            _take_back(session, job, lease_expired_at, cap, done)
    session.flush()
    _poke_forgotten(session, now, timedelta(seconds=patience), done)
    forget_settled(session)
    return done


def charge_running(session: Session, now: datetime) -> None:
    """Charge tenants for what attempts have used beyond what was charged at their claims.

    Without it a tenant with a job of hours would look to the queue like one with a job of a
    minute until the job ends.
    """
    for job, _ in _locked(session, JobRecord.status.in_(_WITH_WORKER), JobRecord.type != SEARCH):
        more = job.on_clock(now) - job.charged_seconds
        if more > 0:
            session.execute(
                update(JobRecord)
                .where(JobRecord.id == job.id)
                .values(charged_seconds=job.charged_seconds + more)
                .execution_options(synchronize_session=False)
            )
            shares.charge(session, job, more)


def _due(session: Session, now: datetime) -> list[tuple[Standing, datetime | None]]:
    """Jobs whose lease is over, with the time it ended, and those that have waited too long."""
    dead = and_(JobRecord.status.in_(_WITH_WORKER), JobRecord.lease_expires_at < now)
    late = and_(JobRecord.status == "queued", JobRecord.expires_at <= now)
    return _locked(session, or_(dead, late), JobRecord.type != SEARCH, limit=_BATCH)


def _locked(
    session: Session, *conditions: ColumnElement[bool], limit: int | None = None
) -> list[tuple[Standing, datetime | None]]:
    """Matching jobs that nobody else holds, in the order in which shares are locked."""
    rows = session.execute(
        Standing.query()
        .add_columns(JobRecord.lease_expires_at)
        .where(*conditions)
        .order_by(JobRecord.tenant_id, JobRecord.queue, JobRecord.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = []
    for row in rows:
        columns = dict(row._mapping)
        expires_at = columns.pop("lease_expires_at")
        found.append((Standing(**columns), expires_at))
    return found


def _take_back(
    session: Session, job: Standing, ended_at: datetime, cap: int, done: Reconciled
) -> None:
    """The worker of the job died; its attempt counts until its lease ended."""
    append_event(session, job.id, "lease_expired", {"attempt": job.attempt})
    deaths = _deaths(session, job.id)
    ran = job.ran_seconds + job.on_clock(ended_at)
    if deaths >= cap:
        settle(session, job.id, "failed", error=_exhausted(deaths), now=ended_at)
        done.failed.append(job.id)
    elif job.max_run_seconds is not None and ran >= job.max_run_seconds:
        error = ran_too_long(job.max_run_seconds)
        settle(session, job.id, "failed", error=error, now=ended_at)
        done.failed.append(job.id)
    else:
        requeue(session, job, ended_at)
        done.requeued.append(job.id)


def _exhausted(deaths: int) -> dict[str, object]:
    attempts = "attempt" if deaths == 1 else "attempts"
    return {
        "type": "attempts-exhausted",
        "title": f"The worker died during the job, in {deaths} {attempts}.",
        "hint": "The job most likely takes down its machine, for example by using more memory "
        "than there is: try a smaller batch size, and look at the end of the job's log.",
        "where": "",
        "retryable": True,
    }


def _deaths(session: Session, job_id: str) -> int:
    # counted, not read off `attempt`: a job that a stopping worker gave back did not die
    session.flush()
    return session.execute(
        select(func.count())
        .select_from(EventRecord)
        .where(EventRecord.job_id == job_id, EventRecord.type == "lease_expired")
    ).scalar_one()


def _poke_forgotten(session: Session, now: datetime, patience: timedelta, done: Reconciled) -> None:
    waiting = session.execute(
        select(
            JobRecord.id,
            JobRecord.queue,
            func.count(OutboxRecord.id).label("pokes"),
            func.count(OutboxRecord.sent_at).label("sent"),
            func.max(OutboxRecord.sent_at).label("last"),
        )
        .outerjoin(OutboxRecord, OutboxRecord.job_id == JobRecord.id)
        .where(or_(JobRecord.status == "queued", is_stalled()))
        .group_by(JobRecord.id, JobRecord.queue)
        .having(
            (func.max(OutboxRecord.sent_at) < now - patience) | (func.count(OutboxRecord.id) == 0)
        )
        .order_by(JobRecord.id)
    ).all()
    for job in waiting:
        if job.pokes > job.sent:
            continue  # one is on its way
        wait = min(patience * 2 ** min(max(job.sent - 1, 0), 20), max(_LONGEST_WAIT, patience))
        if job.last is None or job.last < now - wait:
            poke(session, job.id, job.queue)
            done.poked.append(job.id)
        if len(done.poked) == _BATCH:
            return  # any poke serves any job of the queue; the next pass sends more
