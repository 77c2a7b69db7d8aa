"""The log of changes: an entry is made before the change and completed after it.

So a process that dies in between leaves an entry that says what was tried, with status 0 for an
outcome that nobody knows; nothing is changed without an entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from persistence.paging import Slice
from persistence.records import AuditRecord

_LONGEST_TARGET = 80


@dataclass(frozen=True)
class Filters:
    """Which entries; None means any."""

    action: str | None = None
    target: str | None = None
    key_id: str | None = None
    since: datetime | None = None


def begin(
    session: Session,
    *,
    tenant_id: str,
    key_id: str | None,
    action: str,
    target: str,
    request_id: str,
    address: str,
) -> int:
    """Note that a change is tried; returns the entry's number."""
    record = AuditRecord(
        tenant_id=tenant_id,
        key_id=key_id,
        action=action,
        target=target[:_LONGEST_TARGET],
        status=0,
        request_id=request_id,
        address=address,
    )
    session.add(record)
    session.flush()
    return record.id


def finish(session: Session, tenant_id: str, entry: int, *, status: int, target: str) -> None:
    """Note what came of it, and of what was made its id."""
    session.execute(
        update(AuditRecord)
        .where(AuditRecord.tenant_id == tenant_id, AuditRecord.id == entry)
        .values(status=status, target=target[:_LONGEST_TARGET])
        .execution_options(synchronize_session=False)
    )


def list_page(
    session: Session, tenant_id: str, filters: Filters, *, limit: int, cursor: int | None
) -> Slice[AuditRecord]:
    """The tenant's entries, newest first, below the cursor."""
    query = select(AuditRecord).where(AuditRecord.tenant_id == tenant_id)
    if filters.action is not None:
        query = query.where(AuditRecord.action == filters.action)
    if filters.target is not None:
        query = query.where(AuditRecord.target == filters.target)
    if filters.key_id is not None:
        query = query.where(AuditRecord.key_id == filters.key_id)
    if filters.since is not None:
        query = query.where(AuditRecord.created_at >= filters.since)
    if cursor is not None:
        query = query.where(AuditRecord.id < cursor)
    records = list(session.scalars(query.order_by(AuditRecord.id.desc()).limit(limit + 1)))
    if len(records) <= limit:
        return Slice(records, None)
    return Slice(records[:limit], str(records[limit - 1].id))


def forget(session: Session, before: datetime) -> int:
    """Drop entries made before then, of every tenant; returns how many."""
    done = session.execute(
        delete(AuditRecord)
        .where(AuditRecord.created_at < before)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", done).rowcount
