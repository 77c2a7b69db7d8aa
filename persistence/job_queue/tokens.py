"""The fencing token of a claim and the condition that checks it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from persistence.records import JobRecord


@dataclass(frozen=True)
class Claim:
    """The right to run one attempt of one job.

    Attributes:
        job_id: the job.
        attempt: the fencing token; the next claim gets a larger one.
        owner: name of the worker.
        tenant_id: owner of the job.
        ran_seconds: what earlier attempts ran.
        max_run_seconds: what all attempts together may run, as far as the job says.
        deadline: of the job, if it has one.
        deadline_in: seconds from the claim until then, by the database's clock.
    """

    job_id: str
    attempt: int
    owner: str
    tenant_id: str
    ran_seconds: float = 0.0
    max_run_seconds: int | None = None
    deadline: datetime | None = None
    deadline_in: float | None = None


def fence(held: Claim) -> ColumnElement[bool]:
    """True of the job's row while the claim is the current one and the job has not ended."""
    return and_(
        JobRecord.id == held.job_id,
        JobRecord.attempt == held.attempt,
        JobRecord.lease_owner == held.owner,
        JobRecord.status.in_(("running", "canceling")),
    )


def holds(session: Session, held: Claim) -> bool:
    """Whether the token is still good; if so, it stays good until the transaction ends."""
    condition: ColumnElement[bool] = and_(fence(held))
    found = session.execute(select(JobRecord.id).where(condition).with_for_update())
    return found.scalar_one_or_none() is not None
