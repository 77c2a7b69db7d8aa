"""API keys: made, verified, rotated, revoked. The database holds the SHA-256 of their secrets."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from persistence import key_secrets
from persistence.identifiers import new_id
from persistence.paging import Slice, page
from persistence.records import SCOPES, ApiKeyRecord, TenantRecord, utc_now


def create(
    session: Session,
    *,
    tenant_id: str,
    name: str,
    scopes: Sequence[str] = SCOPES,
    expires_at: datetime | None = None,
) -> tuple[ApiKeyRecord, str]:
    """A new key and its secret, which cannot be read again later."""
    key_id = new_id("key")
    secret = key_secrets.make(key_id)
    record = ApiKeyRecord(
        id=key_id,
        tenant_id=tenant_id,
        name=name,
        prefix=secret[: key_secrets.SHOWN],
        secret_sha256=key_secrets.sha256(secret),
        scopes=[scope for scope in SCOPES if scope in scopes],
        expires_at=expires_at,
    )
    session.add(record)
    session.flush()
    return record, secret


def find(session: Session, secret: str) -> ApiKeyRecord | None:
    """The key of this secret, whatever its state; one read by key, none for a malformed secret."""
    sha256 = key_secrets.sha256(secret)
    if (key_id := key_secrets.key_id(secret)) is not None:
        record = session.get(ApiKeyRecord, key_id)
    elif key_secrets.is_of_the_first_form(secret):
        record = session.scalar(select(ApiKeyRecord).where(ApiKeyRecord.secret_sha256 == sha256))
    else:
        return None
    if record is None or not hmac.compare_digest(record.secret_sha256, sha256):
        return None
    return record


def verify(session: Session, secret: str) -> ApiKeyRecord | None:
    """The key this secret opens, unless it is unknown, revoked or expired."""
    record = find(session, secret)
    return record if record is not None and is_active(record, utc_now()) else None


def is_active(record: ApiKeyRecord, now: datetime) -> bool:
    """Whether the key opens anything at that time."""
    expired = record.expires_at is not None and record.expires_at <= now
    return record.revoked_at is None and not expired


def get(session: Session, tenant_id: str, key_id: str) -> ApiKeyRecord | None:
    """One key of the tenant."""
    return session.scalar(
        select(ApiKeyRecord).where(ApiKeyRecord.tenant_id == tenant_id, ApiKeyRecord.id == key_id)
    )


def list_page(
    session: Session, tenant_id: str, *, limit: int, cursor: str | None
) -> Slice[ApiKeyRecord]:
    """The tenant's keys, newest first, revoked ones included."""
    query = select(ApiKeyRecord).where(ApiKeyRecord.tenant_id == tenant_id)
    return page(session, query, ApiKeyRecord.id, limit=limit, cursor=cursor)


def lock(session: Session, tenant_id: str) -> None:
    """Let nobody else change the tenant's keys before this transaction ends."""
    # weaker than FOR UPDATE: rows that only refer to the tenant can still be written
    query = select(TenantRecord.id).where(TenantRecord.id == tenant_id)
    session.execute(query.with_for_update(key_share=True))


def is_last_admin(session: Session, record: ApiKeyRecord) -> bool:
    """Whether the tenant could manage no keys without this one. Call `lock` before.

    A key that was rotated, and so ends soon, counts for nothing.
    """
    now = utc_now()
    if "admin" not in record.scopes or not is_active(record, now):
        return False
    query = select(ApiKeyRecord).where(
        ApiKeyRecord.tenant_id == record.tenant_id,
        ApiKeyRecord.id != record.id,
        ApiKeyRecord.revoked_at.is_(None),
        ApiKeyRecord.replaced_by_id.is_(None),
    )
    others = session.scalars(query)
    return not any("admin" in other.scopes and is_active(other, now) for other in others)


def rotate(session: Session, record: ApiKeyRecord, *, grace: timedelta) -> tuple[ApiKeyRecord, str]:
    """A key in place of this one, with its name, scopes and length of life; this one opens until
    the grace time ends, or its own. Call `lock` before."""
    now = utc_now()
    life = None if record.expires_at is None else record.expires_at - record.created_at
    made, secret = create(
        session,
        tenant_id=record.tenant_id,
        name=record.name,
        scopes=record.scopes,
        expires_at=None if life is None else now + life,
    )
    record.replaced_by_id = made.id
    end = now + grace
    record.expires_at = end if record.expires_at is None else min(record.expires_at, end)
    return made, secret


def revoke(record: ApiKeyRecord) -> None:
    """Close the key; a revoked key keeps its first date."""
    if record.revoked_at is None:
        record.revoked_at = utc_now()
