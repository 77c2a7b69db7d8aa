"""The fencing token of a claim and the condition that checks it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_

from persistence.records import JobRecord


@dataclass(frozen=True)
class Claim:
    """The right to run one attempt of one job.

    Attributes:
        job_id: the job.
        attempt: the fencing token; the next claim gets a larger one.
        owner: name of the worker.
        tenant_id: owner of the job.
    """

    job_id: str
    attempt: int
    owner: str
    tenant_id: str


def fence(held: Claim) -> ColumnElement[bool]:
    """True of the job's row while the claim is the current one and the job has not ended."""
    return and_(
        JobRecord.id == held.job_id,
        JobRecord.attempt == held.attempt,
        JobRecord.lease_owner == held.owner,
        JobRecord.status.in_(("running", "canceling")),
    )
