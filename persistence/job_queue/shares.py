"""Whose turn it is: start-time fair queueing between tenants, all with the same weight.

Every tenant has a virtual time in every queue, the seconds of workers it has used. The tenant
with the least is served next (stride scheduling, Waldspurger and Weihl 1995, with strides that are
the jobs' own durations). Who was idle comes back at the time of those who were not, as in
start-time fair queueing (Goyal, Vin and Cheng 1996): idleness saves up no turns.

How long a job will run is not known when it starts. A claim is charged `ADVANCE_SECONDS`, so that
workers that claim at the same moment spread over the tenants; the reconciler charges longer
attempts while they run; the end of an attempt settles the difference. So of two tenants that
always have jobs waiting, neither gets more seconds of a worker than the other by more than a job.

Each row also counts the tenant's waiting and running jobs. Every transition of a job changes the
row in its own transaction, so the counts are exact. The changes are written when the transaction
commits, sorted by tenant and queue: shares are locked last, in one order, and for a moment only.
A claim, which starts from a share, waits for no lock while it holds it. So nobody waits in a
circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    case,
    event,
    func,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_on_sqlite
from sqlalchemy.orm import Session, aliased

from persistence.job_queue.clocks import Standing
from persistence.records import LIVE, SEARCH, JobRecord, QueueShareRecord

ADVANCE_SECONDS = 60.0
"""What a claim is charged before anybody knows how long its job will run."""

_MOVES = "secateur_share_moves"
_ZERO: ColumnElement[int] = literal(0, literal_execute=True)
# literals, not parameters: a partial index serves a query only if its condition is seen in it


def has_waiting() -> ColumnElement[bool]:
    """Of a share: the tenant has jobs that no worker has."""
    return QueueShareRecord.waiting > _ZERO


def arrive(session: Session, tenant_id: str, queue: str) -> None:
    """A job of the tenant comes to the queue and waits."""
    _change(session, tenant_id, queue, waiting=1)


def claimed(session: Session, job: Standing) -> None:
    """A waiting job was given to a worker."""
    _change(session, job.tenant_id, job.queue, waiting=-1, running=1, used=ADVANCE_SECONDS)


def returned(session: Session, job: Standing, now: datetime) -> None:
    """An attempt ended and its job waits again."""
    used = job.on_clock(now) - job.charged_seconds
    _change(session, job.tenant_id, job.queue, waiting=1, running=-1, used=used)


def left(session: Session, job: Standing, now: datetime) -> None:
    """A job ended, from whatever state."""
    if job.type == SEARCH:
        return  # no worker ran it
    if job.waits:
        _change(session, job.tenant_id, job.queue, waiting=-1)
        return
    used = job.on_clock(now) - job.charged_seconds
    _change(session, job.tenant_id, job.queue, running=-1, used=used)


def charge(session: Session, job: Standing, seconds: float) -> None:
    """A running attempt has used so much more than it was charged."""
    _change(session, job.tenant_id, job.queue, used=seconds)


def next_tenant(session: Session, queue: str, *, passed_over: Collection[str]) -> str | None:
    """The tenant whose turn it is, its share locked until the transaction ends.

    Shares that others hold are skipped. Waiting for them here would invite deadlocks: PostgreSQL
    keeps the lock of a row that it waited for and then found without waiting jobs, and goes on.

    Args:
        session: the transaction.
        queue: to take from.
        passed_over: tenants that were tried already.
    """
    query = select(QueueShareRecord.tenant_id).where(QueueShareRecord.queue == queue, has_waiting())
    if passed_over:
        query = query.where(QueueShareRecord.tenant_id.not_in(sorted(passed_over)))
    query = query.order_by(QueueShareRecord.used_seconds, QueueShareRecord.tenant_id).limit(1)
    return session.execute(query.with_for_update(skip_locked=True)).scalar_one_or_none()


def any_waiting(session: Session, queue: str, *, passed_over: Collection[str]) -> bool:
    """Whether another tenant has jobs waiting; takes no lock."""
    query = select(QueueShareRecord.tenant_id).where(QueueShareRecord.queue == queue, has_waiting())
    if passed_over:
        query = query.where(QueueShareRecord.tenant_id.not_in(sorted(passed_over)))
    return session.execute(query.limit(1)).first() is not None


@dataclass
class _Move:
    """What a transaction changes in one share."""

    waiting: int = 0
    running: int = 0
    used: float = 0.0


def _change(
    session: Session,
    tenant_id: str,
    queue: str,
    *,
    waiting: int = 0,
    running: int = 0,
    used: float = 0.0,
) -> None:
    moves: dict[tuple[str, str], _Move] = session.info.setdefault(_MOVES, {})
    move = moves.setdefault((tenant_id, queue), _Move())
    move.waiting += waiting
    move.running += running
    move.used += used


@event.listens_for(Session, "before_commit")
def write_changes(session: Session) -> None:
    """Write what the transaction changes in shares; who reads shares in it does so first."""
    moves: dict[tuple[str, str], _Move] = session.info.pop(_MOVES, {})
    for (tenant_id, queue), move in sorted(moves.items(), key=lambda item: item[0]):
        _write(session, tenant_id, queue, move)


@event.listens_for(Session, "after_rollback")
def _forget_changes(session: Session) -> None:
    session.info.pop(_MOVES, None)


def _write(session: Session, tenant_id: str, queue: str, move: _Move) -> None:
    share = QueueShareRecord
    used_seconds: Any = _lifted(queue) if move.waiting > 0 else share.used_seconds
    changed = (
        update(share)
        .where(share.tenant_id == tenant_id, share.queue == queue)
        .values(
            waiting=share.waiting + move.waiting,
            running=share.running + move.running,
            used_seconds=used_seconds + move.used,
        )
        .returning(share.tenant_id)
        .execution_options(synchronize_session=False)
    )
    if session.execute(changed).one_or_none() is None:
        _create(session, tenant_id, queue)
        session.execute(changed).one()


def _lifted(queue: str) -> ColumnElement[Any]:
    """The tenant's time; if it was idle, at least that of the busy tenant who has used least."""
    share = QueueShareRecord
    other = aliased(QueueShareRecord)
    busy = or_(other.waiting > _ZERO, other.running > _ZERO)
    times = select(other.used_seconds).where(other.queue == queue)
    least = times.where(busy).order_by(other.used_seconds).limit(1).scalar_subquery()
    most = times.order_by(other.used_seconds.desc()).limit(1).scalar_subquery()
    # where all are idle: the end of the last busy time
    floor = func.coalesce(least, most, 0.0)
    idle = and_(share.waiting == 0, share.running == 0)
    return case((and_(idle, share.used_seconds < floor), floor), else_=share.used_seconds)


def _create(session: Session, tenant_id: str, queue: str) -> None:
    """The share, unless another transaction makes it at this moment."""
    values = {
        "tenant_id": tenant_id,
        "queue": queue,
        "waiting": 0,
        "running": 0,
        "used_seconds": 0.0,
    }
    if session.get_bind().dialect.name == "postgresql":
        session.execute(
            insert_on_postgresql(QueueShareRecord).values(values).on_conflict_do_nothing()
        )
    else:
        session.execute(insert_on_sqlite(QueueShareRecord).values(values).on_conflict_do_nothing())


@dataclass(frozen=True)
class Drift:
    """A share whose counts were wrong."""

    tenant_id: str
    queue: str
    waiting: int
    """Too many, or too few where negative."""
    running: int


def drifts(session: Session) -> list[Drift]:
    """Shares that count other than there are, in order; one statement, so one moment."""
    share, job = QueueShareRecord, JobRecord
    waits = case((job.status == "queued", 1), else_=0)
    counted = select(
        share.tenant_id, share.queue, share.waiting.label("waiting"), share.running.label("running")
    )
    there = (
        select(job.tenant_id, job.queue, -func.sum(waits), func.sum(waits) - func.count())
        .where(job.status.in_(LIVE), job.type != SEARCH)
        .group_by(job.tenant_id, job.queue)
    )
    waiting: Counter[tuple[str, str]] = Counter()
    running: Counter[tuple[str, str]] = Counter()
    for row in session.execute(union_all(counted, there)):
        key = (row.tenant_id, row.queue)
        waiting[key] += int(row.waiting)
        running[key] += int(row.running)
    keys = sorted(key for key in waiting if waiting[key] or running[key])
    return [Drift(*key, waiting[key], running[key]) for key in keys]


def repair(session: Session, drift: Drift) -> bool:
    """Count again with the share locked; returns whether it was wrong indeed."""
    share = QueueShareRecord
    own = and_(share.tenant_id == drift.tenant_id, share.queue == drift.queue)
    _create(session, drift.tenant_id, drift.queue)
    before = session.execute(select(share.waiting, share.running).where(own).with_for_update())
    counts = tuple(before.one())
    jobs = JobRecord.tenant_id == drift.tenant_id, JobRecord.queue == drift.queue
    count = select(func.count()).select_from(JobRecord).where(*jobs, JobRecord.type != SEARCH)
    waiting = session.scalar(count.where(JobRecord.status == "queued"))
    running = session.scalar(count.where(JobRecord.status.in_(("running", "canceling"))))
    if counts == (waiting, running):
        return False
    session.execute(
        update(share)
        .where(own)
        .values(waiting=waiting, running=running)
        .execution_options(synchronize_session=False)
    )
    return True
