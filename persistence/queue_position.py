"""How many jobs are ahead of a waiting one.

The answer is what would happen if workers took all waiting jobs now, each charged what a claim is
charged at first (`shares.ADVANCE_SECONDS`): how many would be taken before this one. It is an
estimate of the true order, for it knows neither how long jobs will run nor who comes meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from persistence.job_queue import shares
from persistence.job_queue.turns import ORDER, waits
from persistence.records import SEARCH, JobRecord, QueueShareRecord


def queue_positions(session: Session, jobs: Iterable[JobRecord]) -> dict[str, int]:
    """The jobs ahead of each of these, by id; only of those that wait for a worker.

    Two queries for every tenant and queue among the jobs: one reads the waiting jobs of the
    tenant in an index, the other the shares of tenants that wait.
    """
    waiting = [job for job in jobs if job.status == "queued" and job.type != SEARCH]
    shares.write_changes(session)
    found: dict[str, int] = {}
    for tenant_id, queue in sorted({(job.tenant_id, job.queue) for job in waiting}):
        ids = [job.id for job in waiting if (job.tenant_id, job.queue) == (tenant_id, queue)]
        own = _own_ahead(session, tenant_id, queue, ids)
        lines = session.execute(
            select(
                QueueShareRecord.tenant_id, QueueShareRecord.used_seconds, QueueShareRecord.waiting
            ).where(QueueShareRecord.queue == queue, shares.has_waiting())
        ).all()
        used = next((one.used_seconds for one in lines if one.tenant_id == tenant_id), 0.0)
        others = [one for one in lines if one.tenant_id != tenant_id]
        for job_id, ahead in own.items():
            turn = used + ahead * shares.ADVANCE_SECONDS
            found[job_id] = ahead + sum(
                _taken_before(turn, one.used_seconds, one.waiting, first=one.tenant_id < tenant_id)
                for one in others
            )
    return found


def queue_position(session: Session, job: JobRecord) -> int | None:
    """The jobs ahead of one; None unless it waits for a worker."""
    return queue_positions(session, [job]).get(job.id)


def _own_ahead(session: Session, tenant_id: str, queue: str, ids: list[str]) -> dict[str, int]:
    place = (func.row_number().over(order_by=ORDER) - 1).label("place")
    line = (
        select(JobRecord.id, place)
        .where(JobRecord.tenant_id == tenant_id, JobRecord.queue == queue, waits())
        .subquery()
    )
    rows = session.execute(select(line.c.id, line.c.place).where(line.c.id.in_(ids)))
    return {row.id: int(row.place) for row in rows}


def _taken_before(turn: float, used: float, waiting: int, *, first: bool) -> int:
    """Jobs of a tenant with `used` seconds that are taken before one whose turn comes at `turn`.

    Args:
        turn: the time of the tenant whose job it is, at that job's claim.
        used: the time of this tenant now.
        waiting: its jobs.
        first: whether it is served first where the times are equal.
    """
    steps = (turn - used) / shares.ADVANCE_SECONDS
    before = math.floor(steps) + 1 if first else math.ceil(steps)
    return min(max(before, 0), waiting)
