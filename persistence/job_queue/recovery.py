"""Recovery: jobs whose worker died, and jobs whose poke got lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from persistence.job_queue.completion import settle
from persistence.job_queue.history import append_event, close_stages
from persistence.job_queue.outbox import forget_settled, poke
from persistence.job_queue.trials import is_stalled
from persistence.records import EventRecord, JobRecord, OutboxRecord
from persistence.settings import settings

_BATCH = 200
_LONGEST_WAIT = timedelta(hours=1)


@dataclass
class Reconciled:
    """Ids of the jobs a reconciliation touched."""

    requeued: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    poked: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.requeued or self.failed or self.canceled or self.poked)


def reconcile(
    session: Session,
    now: datetime,
    *,
    max_attempts: int | None = None,
    requeue_after_seconds: float | None = None,
) -> Reconciled:
    """Put right what dead workers and lost messages left behind.

    A job whose lease expired goes back to the queue, or fails with `attempts-exhausted` when as
    many attempts died; one that was being canceled is canceled. A queued job that was poked long
    ago is poked again, each time after twice the wait (a full queue is no lost message), and so is
    a search that has not seen the end of a trial.

    Args:
        session: the transaction.
        now: the time leases are compared with; see `database_time`.
        max_attempts: from the settings when left out.
        requeue_after_seconds: from the settings when left out.
    """
    cap = settings().max_attempts if max_attempts is None else max_attempts
    patience = (
        settings().requeue_after_seconds if requeue_after_seconds is None else requeue_after_seconds
    )
    done = Reconciled()
    expired = session.execute(
        select(JobRecord.id, JobRecord.status, JobRecord.queue, JobRecord.attempt)
        .where(JobRecord.status.in_(("running", "canceling")), JobRecord.lease_expires_at < now)
        .order_by(JobRecord.id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    for job in expired:
        if job.status == "canceling":
            settle(session, job.id, "canceled")
            done.canceled.append(job.id)
            continue
        append_event(session, job.id, "lease_expired", {"attempt": job.attempt})
        deaths = _deaths(session, job.id)
        if deaths >= cap:
            settle(session, job.id, "failed", error=_exhausted(deaths))
            done.failed.append(job.id)
        else:
            _requeue(session, job.id, job.queue)
            done.requeued.append(job.id)
    session.flush()
    _poke_forgotten(session, now, timedelta(seconds=patience), done)
    forget_settled(session)
    return done


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


def _requeue(session: Session, job_id: str, queue: str) -> None:
    close_stages(session, job_id, "interrupted")
    session.execute(
        update(JobRecord)
        .where(JobRecord.id == job_id)
        .values(
            status="queued",
            stage=None,
            progress=None,
            lease_owner=None,
            lease_expires_at=None,
            version=JobRecord.version + 1,
        )
        .execution_options(synchronize_session=False)
    )
    poke(session, job_id, queue)


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
