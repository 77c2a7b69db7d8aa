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
    # not against foreign keys: a claim that holds the tenant's share looks at this row, and this
    # transaction may come to wait for the share
    query = _live(tenant_id).where(ModelRecord.id == model_id)
    return session.scalar(query.with_for_update(key_share=True))


def find_by_content(session: Session, tenant_id: str, sha256: str) -> ModelRecord | None:
    """The tenant's model whose kept copy has exactly these bytes."""
    return session.scalar(_live(tenant_id).where(ModelRecord.sha256 == sha256))


def find_by_upload(session: Session, tenant_id: str, sha256: str) -> ModelRecord | None:
    """The tenant's model that came as exactly these bytes; the oldest, should there be several."""
    query = _live(tenant_id).where(ModelRecord.upload_sha256 == sha256)
    return session.scalar(query.order_by(ModelRecord.id).limit(1))


def list_page(
    session: Session, tenant_id: str, *, limit: int, cursor: str | None, status: str | None = None
) -> Slice[ModelRecord]:
    """The tenant's models, newest first."""
    query = _live(tenant_id)
    if status is not None:
        query = query.where(ModelRecord.status == status)
    return page(session, query, ModelRecord.id, limit=limit, cursor=cursor)


def add(
    session: Session,
    *,
    tenant_id: str,
    name: str,
    sha256: str,
    size: int,
    upload_sha256: str | None = None,
) -> ModelRecord:
    """A new model, `uploaded` until it was inspected.

    Args:
        session: of the transaction.
        tenant_id: whose it is.
        name: what its owner calls it.
        sha256: of the copy that is kept.
        size: of the copy, in bytes.
        upload_sha256: of the file that was uploaded.
    """
    record = ModelRecord(
        tenant_id=tenant_id, name=name, sha256=sha256, bytes=size, upload_sha256=upload_sha256
    )
    session.add(record)
    session.flush()
    return record


def delete(record: ModelRecord) -> None:
    """Hide the model; its row stays for the jobs that name it."""
    record.deleted_at = utc_now()
