"""The outbox: pokes for the broker, written in the transaction that made them necessary.

A poke names a job and means its queue: there is one more job to be claimed there, of which the
worker takes whichever is next. Only a search means itself.

A dispatcher publishes them and marks them sent afterwards, so a crash between the two sends a
poke twice, never not at all. A second poke is harmless: the claim decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from persistence.job_queue.clocks import database_time
from persistence.records import LIVE, SEARCH, JobRecord, OutboxRecord


@dataclass(frozen=True)
class Poke:
    """A message to send: there is work in `queue`, such as `job_id`."""

    id: int
    job_id: str
    queue: str


def poke(session: Session, job_id: str, queue: str) -> None:
    """Have the dispatcher tell the queue about the job."""
    session.add(OutboxRecord(job_id=job_id, queue=queue))


def heeds_pokes() -> ColumnElement[bool]:
    """Whether a poke still means something to a job: it waits, or it is a search that goes on."""
    search = and_(JobRecord.type == SEARCH, JobRecord.status.in_(LIVE))
    return or_(JobRecord.status == "queued", search)


def take_pokes(session: Session, job_id: str) -> None:
    """Forget the pokes of a search that were sent: it is being looked after."""
    session.execute(
        delete(OutboxRecord)
        .where(OutboxRecord.job_id == job_id, OutboxRecord.sent_at.is_not(None))
        .execution_options(synchronize_session=False)
    )


def any_unsent(session: Session) -> bool:
    """Whether there is anything to send; takes no lock."""
    query = select(OutboxRecord.id).where(OutboxRecord.sent_at.is_(None)).limit(1)
    return session.execute(query).first() is not None


def unsent(session: Session, limit: int) -> list[Poke]:
    """The oldest pokes that were not sent yet.

    The rows stay locked until the transaction ends; other dispatchers skip them.
    """
    rows = session.execute(
        select(OutboxRecord.id, OutboxRecord.job_id, OutboxRecord.queue)
        .where(OutboxRecord.sent_at.is_(None))
        .order_by(OutboxRecord.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [Poke(id=row.id, job_id=row.job_id, queue=row.queue) for row in rows]


def mark_sent(session: Session, pokes: Sequence[Poke]) -> None:
    """Note that the broker has these pokes, at the database's time: with that of a dispatcher whose
    clock is ahead, a lost poke would be missed late or never."""
    session.execute(
        update(OutboxRecord)
        .where(OutboxRecord.id.in_([poke.id for poke in pokes]))
        .values(sent_at=database_time(session))
        .execution_options(synchronize_session=False)
    )


def forget_settled(session: Session) -> int:
    """Drop sent pokes of jobs that need none any longer; returns how many."""
    waiting = select(JobRecord.id).where(heeds_pokes())
    dropped = session.execute(
        delete(OutboxRecord)
        .where(OutboxRecord.sent_at.is_not(None), OutboxRecord.job_id.not_in(waiting))
        .returning(OutboxRecord.id)
        .execution_options(synchronize_session=False)
    )
    return len(dropped.all())
