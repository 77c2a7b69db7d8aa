"""API keys. The secret is shown once, at creation; the database holds its SHA-256.

A secret carries 256 random bits, so one unsalted hash is enough: there is no dictionary to try,
and the lookup stays one indexed read.
"""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from persistence.paging import Slice, page
from persistence.records import ApiKeyRecord, utc_now

SECRET_PREFIX = "sk_"  # noqa: S105 - the public prefix of every secret
_SHOWN = 10


def create(session: Session, *, tenant_id: str, name: str) -> tuple[ApiKeyRecord, str]:
    """A new key and its secret, which cannot be read again later."""
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    record = ApiKeyRecord(
        tenant_id=tenant_id, name=name, prefix=secret[:_SHOWN], secret_sha256=_hash(secret)
    )
    session.add(record)
    session.flush()
    return record, secret


def verify(session: Session, secret: str) -> ApiKeyRecord | None:
    """The key this secret opens, unless it is unknown or revoked."""
    return session.scalar(
        select(ApiKeyRecord).where(
            ApiKeyRecord.secret_sha256 == _hash(secret), ApiKeyRecord.revoked_at.is_(None)
        )
    )


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


def revoke(record: ApiKeyRecord) -> None:
    """Close the key; a revoked key keeps its first date."""
    if record.revoked_at is None:
        record.revoked_at = utc_now()


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
