"""Uploads in parts: what of a file has arrived, and who puts it together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.orm import Session

from persistence.paging import Slice, page
from persistence.records import UploadPartRecord, UploadRecord


@dataclass(frozen=True)
class Received:
    """How much of a file has arrived."""

    parts: int
    bytes: int


def get(session: Session, tenant_id: str, upload_id: str) -> UploadRecord | None:
    """One upload of the tenant."""
    return session.scalar(
        select(UploadRecord).where(
            UploadRecord.tenant_id == tenant_id, UploadRecord.id == upload_id
        )
    )


def get_for_update(session: Session, tenant_id: str, upload_id: str) -> UploadRecord | None:
    """The same, locked until the transaction ends. Lock it before any blob."""
    return session.scalar(
        select(UploadRecord)
        .where(UploadRecord.tenant_id == tenant_id, UploadRecord.id == upload_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def list_page(
    session: Session,
    tenant_id: str,
    *,
    limit: int,
    cursor: str | None,
    kind: str | None = None,
    status: str | None = None,
    sha256: str | None = None,
) -> Slice[UploadRecord]:
    """The tenant's uploads, newest first, that match every given filter."""
    query = select(UploadRecord).where(UploadRecord.tenant_id == tenant_id)
    for column, wanted in (
        (UploadRecord.kind, kind),
        (UploadRecord.status, status),
        (UploadRecord.sha256, sha256),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    return page(session, query, UploadRecord.id, limit=limit, cursor=cursor)


def received(session: Session, found: Collection[UploadRecord]) -> dict[str, Received]:
    """How much of each upload has arrived, in one query; what has no part is left out."""
    rows = session.execute(
        select(
            UploadPartRecord.upload_id,
            func.count(),
            func.coalesce(func.sum(UploadPartRecord.bytes), 0),
        )
        .where(UploadPartRecord.upload_id.in_([one.id for one in found]))
        .group_by(UploadPartRecord.upload_id)
    )
    return {upload_id: Received(count, int(total)) for upload_id, count, total in rows}


def bytes_beside(session: Session, upload: UploadRecord, number: int) -> int:
    """Bytes of all parts but this one."""
    total = session.scalar(
        select(func.sum(UploadPartRecord.bytes)).where(
            UploadPartRecord.upload_id == upload.id, UploadPartRecord.number != number
        )
    )
    return int(total or 0)


def parts(
    session: Session, upload: UploadRecord, *, after: int = 0, limit: int | None = None
) -> Sequence[UploadPartRecord]:
    """Parts numbered above `after`, in order."""
    return session.scalars(
        select(UploadPartRecord)
        .where(UploadPartRecord.upload_id == upload.id, UploadPartRecord.number > after)
        .order_by(UploadPartRecord.number)
        .limit(limit)
    ).all()


def put_part(
    session: Session, upload: UploadRecord, number: int, *, sha256: str, size: int
) -> tuple[UploadPartRecord, str | None]:
    """Enter a part, and tell the hash of other bytes that were in its place. The caller holds
    the upload's row."""
    record = session.get(UploadPartRecord, (upload.id, number))
    if record is None:
        record = UploadPartRecord(upload_id=upload.id, number=number, sha256=sha256, bytes=size)
        session.add(record)
        session.flush()
        return record, None
    replaced = None if record.sha256 == sha256 else record.sha256
    record.sha256, record.bytes = sha256, size
    return record, replaced


def claim(record: UploadRecord, token: str, until: datetime) -> None:
    """Let one request put the upload together; the caller holds its row and saw it free."""
    record.claimed_by, record.claimed_until = token, until


def is_claimed(record: UploadRecord, now: datetime) -> bool:
    """Whether a request that lives is putting it together."""
    return record.claimed_until is not None and record.claimed_until > now


def renew(session: Session, upload_id: str, token: str, until: datetime) -> bool:
    """Say that the request lives; False when its claim is lost."""
    done = session.execute(
        update(UploadRecord)
        .where(UploadRecord.id == upload_id, UploadRecord.claimed_by == token)
        .values(claimed_until=until)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", done).rowcount == 1


def release(session: Session, upload_id: str, token: str) -> None:
    """Give up the claim; the upload stays open."""
    session.execute(
        update(UploadRecord)
        .where(UploadRecord.id == upload_id, UploadRecord.claimed_by == token)
        .values(claimed_by=None, claimed_until=None)
        .execution_options(synchronize_session=False)
    )


def end(
    session: Session,
    record: UploadRecord,
    status: str,
    *,
    forget_at: datetime,
    answer: Mapping[str, Any] | None = None,
    resource_id: str | None = None,
) -> None:
    """End an upload; the caller holds its row. Its parts are needed no longer."""
    record.status = status
    record.answer = None if answer is None else dict(answer)
    record.resource_id = resource_id
    record.claimed_by = record.claimed_until = None
    record.expires_at = forget_at
    session.flush()
    session.execute(
        delete(UploadPartRecord)
        .where(UploadPartRecord.upload_id == record.id)
        .execution_options(synchronize_session=False)
    )


def expired(session: Session, now: datetime, limit: int) -> Sequence[UploadRecord]:
    """Open uploads that nobody completed in time, locked; those that others hold are left out."""
    return session.scalars(
        select(UploadRecord)
        .where(
            UploadRecord.status == "open",
            UploadRecord.expires_at < now,
            or_(UploadRecord.claimed_until.is_(None), UploadRecord.claimed_until < now),
        )
        .order_by(UploadRecord.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()


def forget_ended(session: Session, now: datetime) -> int:
    """Drop the rows of uploads that ended long enough ago; returns how many."""
    done = session.execute(
        delete(UploadRecord)
        .where(UploadRecord.status != "open", UploadRecord.expires_at < now)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", done).rowcount
