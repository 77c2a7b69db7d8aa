"""The next job of a queue: the tenant whose turn it is, then its priorities, then its oldest.

A poke means that there is work in a queue, not that a certain job is to be run: the worker that
gets it claims the job whose turn it is in that moment.
"""

from __future__ import annotations

import random
import time

from sqlalchemy import ColumnElement, Select, and_, literal, select
from sqlalchemy.orm import Session

from persistence.job_queue import shares
from persistence.job_queue.claims import hand_out
from persistence.job_queue.clocks import Standing, database_time, expiry
from persistence.job_queue.completion import settle
from persistence.job_queue.outbox import poke
from persistence.job_queue.tokens import Claim
from persistence.records import LIVE, SEARCH, JobRecord

_MOST_EXPIRED = 100
"""Expired jobs that one claim clears away; the reconciler takes the rest."""
_PAUSE_SECONDS = 0.005
_MOST_LOOKS = 400
"""At shares that others hold; then the poke is passed on."""

ORDER = (JobRecord.priority.desc(), JobRecord.id)
"""Of one tenant's jobs."""


def waits() -> ColumnElement[bool]:
    """Of a job: it waits for a worker."""
    # literals, not parameters: a partial index serves a query only if its condition is seen in it
    return and_(
        JobRecord.status == literal("queued", literal_execute=True),
        JobRecord.type != literal(SEARCH, literal_execute=True),
    )


def claim_next(session: Session, queue: str, owner: str, lease_seconds: float) -> Claim | None:
    """Take the job whose turn it is; None when no job waits.

    The tenant's share stays locked until the transaction ends, so that each of several workers
    sees what the others were given. They skip the shares that others hold, which is for a moment
    each, and look again where nothing else is left to take.
    """
    passed_over: set[str] = set()
    expired = looks = 0
    while True:
        tenant_id = shares.next_tenant(session, queue, passed_over=passed_over)
        if tenant_id is None:
            if not shares.any_waiting(session, queue, passed_over=passed_over):
                return None
            looks += 1
            if passed_over or looks == _MOST_LOOKS:
                poke_next(session, queue)  # who holds a share must not wait for another
                return None
            time.sleep(random.uniform(0.5, 1.5) * _PAUSE_SECONDS)  # noqa: S311 - to spread out
            continue
        row = session.execute(_first_of(tenant_id, queue)).one_or_none()
        if row is None:
            # its last job is being canceled, or the count is wrong, which the reconciler mends
            passed_over.add(tenant_id)
            continue
        job, now = Standing.of(row), database_time(session)
        error = expiry(job, now)
        if error is None:
            return hand_out(session, job, owner, lease_seconds, now)
        settle(session, job.id, "expired", error=error)
        expired += 1
        if expired == _MOST_EXPIRED:
            poke_next(session, queue)
            return None


def queue_of(session: Session, job_id: str) -> str | None:
    """The queue in which a poke with this job means work; None for a search and unknown jobs."""
    return session.execute(
        select(JobRecord.queue).where(JobRecord.id == job_id, JobRecord.type != SEARCH)
    ).scalar_one_or_none()


def poke_again(session: Session, job_id: str) -> bool:
    """Pass on the poke that named this job; for a worker that took it and cannot use it.

    What it said still holds where the queue has jobs waiting, whichever these are, or where the
    job is a search that goes on.
    """
    job = session.execute(
        select(JobRecord.type, JobRecord.queue).where(JobRecord.id == job_id)
    ).one_or_none()
    if job is None:
        return False
    if job.type != SEARCH:
        return poke_next(session, job.queue)
    if live := session.execute(
        select(JobRecord.id).where(JobRecord.id == job_id, JobRecord.status.in_(LIVE))
    ).one_or_none():
        poke(session, live.id, job.queue)
    return live is not None


def poke_next(session: Session, queue: str) -> bool:
    """Send another poke if jobs wait in the queue."""
    waiting = (
        select(JobRecord.id)
        .where(JobRecord.queue == queue, JobRecord.status == "queued", JobRecord.type != SEARCH)
        .order_by(JobRecord.id)
        .limit(1)
    )
    job_id = session.execute(waiting).scalar_one_or_none()
    if job_id is not None:
        poke(session, job_id, queue)
    return job_id is not None


def _first_of(tenant_id: str, queue: str) -> Select[tuple[object, ...]]:
    return (
        Standing.query()
        .where(JobRecord.tenant_id == tenant_id, JobRecord.queue == queue, waits())
        .order_by(*ORDER)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
