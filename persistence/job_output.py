"""Reading what a tenant's job left behind: events, metrics, log text and artifacts.

A job of another tenant has left nothing: every query finds the job by its owner.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ScalarSelect, select
from sqlalchemy.orm import Session

from persistence.records import ArtifactRecord, EventRecord, JobRecord, LogRecord, MetricRecord


def events(
    session: Session, tenant_id: str, job_id: str, *, after: int, limit: int
) -> Sequence[EventRecord]:
    """Events numbered above `after`, in order."""
    return session.scalars(
        select(EventRecord)
        .where(EventRecord.job_id == _job(tenant_id, job_id), EventRecord.seq > after)
        .order_by(EventRecord.seq)
        .limit(limit)
    ).all()


def metrics(
    session: Session,
    tenant_id: str,
    job_id: str,
    *,
    after: int,
    limit: int,
    name: str | None = None,
) -> Sequence[MetricRecord]:
    """Metrics numbered above `after`, in order, of one name or of all."""
    query = select(MetricRecord).where(
        MetricRecord.job_id == _job(tenant_id, job_id), MetricRecord.seq > after
    )
    if name is not None:
        query = query.where(MetricRecord.name == name)
    return session.scalars(query.order_by(MetricRecord.seq).limit(limit)).all()


def log_chunks(
    session: Session, tenant_id: str, job_id: str, *, after: int, limit: int
) -> Sequence[LogRecord]:
    """What the runner printed, in order over all attempts, from chunks above the id `after`."""
    return session.scalars(
        select(LogRecord)
        .where(LogRecord.job_id == _job(tenant_id, job_id), LogRecord.id > after)
        .order_by(LogRecord.id)
        .limit(limit)
    ).all()


def artifact(session: Session, tenant_id: str, artifact_id: str) -> ArtifactRecord | None:
    """One artifact of the tenant."""
    return session.scalar(
        select(ArtifactRecord).where(
            ArtifactRecord.tenant_id == tenant_id, ArtifactRecord.id == artifact_id
        )
    )


def artifact_of_kind(
    session: Session, tenant_id: str, job_id: str, kind: str
) -> ArtifactRecord | None:
    """The job's artifact of this kind."""
    return session.scalar(
        select(ArtifactRecord).where(
            ArtifactRecord.tenant_id == tenant_id,
            ArtifactRecord.job_id == job_id,
            ArtifactRecord.kind == kind,
        )
    )


def _job(tenant_id: str, job_id: str) -> ScalarSelect[str]:
    """The job's id where the job is the tenant's, and nothing otherwise."""
    return (
        select(JobRecord.id)
        .where(JobRecord.tenant_id == tenant_id, JobRecord.id == job_id)
        .scalar_subquery()
    )
