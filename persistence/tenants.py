"""Tenants: the owners of everything else."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from persistence.records import TenantRecord


def get_or_create(session: Session, name: str) -> TenantRecord:
    """The tenant of this name, made when there is none."""
    tenant = session.scalar(select(TenantRecord).where(TenantRecord.name == name))
    if tenant is None:
        tenant = TenantRecord(name=name)
        session.add(tenant)
        session.flush()
    return tenant
