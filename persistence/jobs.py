"""Reading jobs. What changes a job lies in `persistence.job_queue`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, selectinload

from persistence.paging import Slice, page
from persistence.records import LIVE, JobRecord


@dataclass(frozen=True)
class JobMark:
    """What of a job moved: enough to know whether anyone waiting for it must look."""

    version: int
    status: str


def get(session: Session, tenant_id: str, job_id: str) -> JobRecord | None:
    """One job of the tenant, its artifacts loaded."""
    return session.scalar(
        select(JobRecord)
        .where(JobRecord.tenant_id == tenant_id, JobRecord.id == job_id)
        .options(selectinload(JobRecord.artifacts))
    )


def get_many(session: Session, wanted: Sequence[tuple[str, str]]) -> Sequence[JobRecord]:
    """Jobs by tenant and id, their artifacts loaded; those that are not there are left out."""
    found = session.scalars(
        select(JobRecord)
        .where(JobRecord.id.in_([job_id for _, job_id in wanted]))
        .options(selectinload(JobRecord.artifacts))
    )
    asked = set(wanted)
    return [job for job in found if (job.tenant_id, job.id) in asked]


def get_for_update(session: Session, tenant_id: str, job_id: str) -> JobRecord | None:
    """The same, locked until the transaction ends."""
    return session.scalar(
        select(JobRecord)
        .where(JobRecord.tenant_id == tenant_id, JobRecord.id == job_id)
        .options(selectinload(JobRecord.artifacts))
        .with_for_update(key_share=True)
    )


def list_page(
    session: Session,
    tenant_id: str,
    *,
    limit: int,
    cursor: str | None,
    status: Collection[str] = (),
    type: str | None = None,
    model_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    parent_id: str | None = None,
) -> Slice[JobRecord]:
    """The tenant's jobs, newest first, that match every given filter.

    The trials of a search are listed with its id as `parent_id`, and only then.
    """
    query = (
        select(JobRecord)
        .where(JobRecord.tenant_id == tenant_id, JobRecord.parent_id == parent_id)
        .options(selectinload(JobRecord.artifacts))
    )
    if status:
        query = query.where(JobRecord.status.in_(status))
    if type is not None:
        query = query.where(JobRecord.type == type)
    if model_id is not None:
        query = query.where(JobRecord.model_id == model_id)
    for key, value in (metadata or {}).items():
        query = query.where(JobRecord.metadata_[key].as_string() == value)
    return page(session, query, JobRecord.id, limit=limit, cursor=cursor)


def marks_of(session: Session, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], JobMark]:
    """Version and status of jobs by tenant and id; those that are not there are left out."""
    rows = session.execute(
        select(JobRecord.tenant_id, JobRecord.id, JobRecord.version, JobRecord.status).where(
            JobRecord.id.in_([job_id for _, job_id in wanted])
        )
    )
    asked = set(wanted)
    return {
        (row.tenant_id, row.id): JobMark(row.version, row.status)
        for row in rows
        if (row.tenant_id, row.id) in asked
    }


def live_jobs_using(
    session: Session,
    tenant_id: str,
    *,
    model_id: str | None = None,
    dataset_id: str | None = None,
) -> Sequence[JobRecord]:
    """The tenant's jobs not yet at their end that read this model (or its
    initial weights, a loss or a metric) or dataset."""
    query = (
        select(JobRecord)
        .where(JobRecord.tenant_id == tenant_id, JobRecord.status.in_(LIVE))
        .order_by(JobRecord.id)
    )
    if model_id is not None:
        query = query.where(
            or_(
                JobRecord.model_id == model_id,
                JobRecord.initial_model_id == model_id,
                JobRecord.loss_model_id == model_id,
                JobRecord.metric_model_id == model_id,
            )
        )
    if dataset_id is not None:
        query = query.where(JobRecord.dataset_id == dataset_id)
    return session.scalars(query).all()
