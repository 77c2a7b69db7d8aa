"""Models of a tenant. Deleted ones answer as if they were not there."""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from persistence.paging import Slice, page
from persistence.records import ModelRecord, utc_now


def _live(tenant_id: str) -> Select[ModelRecord]:
    return select(ModelRecord).where(
        ModelRecord.tenant_id == tenant_id, ModelRecord.deleted_at.is_(None)
    )


def get(session: Session, tenant_id: str, model_id: str) -> ModelRecord | None:
    """One model of the tenant."""
    return session.scalar(_live(tenant_id).where(ModelRecord.id == model_id))


def get_for_update(session: Session, tenant_id: str, model_id: str) -> ModelRecord | None:
    """The same, locked until the transaction ends: a job cannot start on a model being deleted."""
    return session.scalar(_live(tenant_id).where(ModelRecord.id == model_id).with_for_update())


def find_by_content(session: Session, tenant_id: str, sha256: str) -> ModelRecord | None:
    """The tenant's model with exactly these bytes."""
    return session.scalar(_live(tenant_id).where(ModelRecord.sha256 == sha256))


def list_page(
    session: Session, tenant_id: str, *, limit: int, cursor: str | None, status: str | None = None
) -> Slice[ModelRecord]:
    """The tenant's models, newest first."""
    query = _live(tenant_id)
    if status is not None:
        query = query.where(ModelRecord.status == status)
    return page(session, query, ModelRecord.id, limit=limit, cursor=cursor)


def add(session: Session, *, tenant_id: str, name: str, sha256: str, size: int) -> ModelRecord:
    """A new model, `uploaded` until it was inspected."""
    record = ModelRecord(tenant_id=tenant_id, name=name, sha256=sha256, bytes=size)
    session.add(record)
    session.flush()
    return record


def delete(record: ModelRecord) -> None:
    """Hide the model; its row stays for the jobs that name it."""
    record.deleted_at = utc_now()
