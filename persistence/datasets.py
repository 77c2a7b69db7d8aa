"""Datasets of a tenant. Deleted ones answer as if they were not there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from persistence.paging import Slice, page
from persistence.records import DatasetRecord, utc_now


def _live(tenant_id: str) -> Select[DatasetRecord]:
    return select(DatasetRecord).where(
        DatasetRecord.tenant_id == tenant_id, DatasetRecord.deleted_at.is_(None)
    )


def get(session: Session, tenant_id: str, dataset_id: str) -> DatasetRecord | None:
    """One dataset of the tenant."""
    return session.scalar(_live(tenant_id).where(DatasetRecord.id == dataset_id))


def get_for_update(session: Session, tenant_id: str, dataset_id: str) -> DatasetRecord | None:
    """The same, locked until the transaction ends."""
    query = _live(tenant_id).where(DatasetRecord.id == dataset_id)
    return session.scalar(query.with_for_update(key_share=True))  # as in `models`


def find_by_content(session: Session, tenant_id: str, sha256: str) -> DatasetRecord | None:
    """The tenant's dataset with exactly these bytes."""
    return session.scalar(_live(tenant_id).where(DatasetRecord.sha256 == sha256))


def list_page(
    session: Session, tenant_id: str, *, limit: int, cursor: str | None
) -> Slice[DatasetRecord]:
    """The tenant's datasets, newest first."""
    return page(session, _live(tenant_id), DatasetRecord.id, limit=limit, cursor=cursor)


def add(
    session: Session,
    *,
    tenant_id: str,
    name: str,
    sha256: str,
    size: int,
    format: str,
    tensors: list[Any],
    splits: dict[str, Any],
) -> DatasetRecord:
    """A new dataset."""
    record = DatasetRecord(
        tenant_id=tenant_id,
        name=name,
        sha256=sha256,
        bytes=size,
        format=format,
        tensors=tensors,
        splits=splits,
    )
    session.add(record)
    session.flush()
    return record


def delete(record: DatasetRecord) -> None:
    """Hide the dataset; its row stays for the jobs that name it."""
    record.deleted_at = utc_now()
