"""The webhooks of a tenant. Deleted ones answer as if they were not there."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from persistence.paging import Slice, page
from persistence.records import WebhookRecord, utc_now

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of every secret
_SECRET_BYTES = 32


def new_secret() -> str:
    """A signing secret as Standard Webhooks writes it: `whsec_` and base64 of 256 random bits."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def add(
    session: Session, *, tenant_id: str, url: str, event_types: Sequence[str], description: str
) -> WebhookRecord:
    """A new webhook with a secret of its own."""
    record = WebhookRecord(
        tenant_id=tenant_id,
        url=url,
        event_types=list(event_types),
        description=description,
        secret=new_secret(),
    )
    session.add(record)
    session.flush()
    return record


def get(session: Session, tenant_id: str, webhook_id: str) -> WebhookRecord | None:
    """One webhook of the tenant."""
    return session.scalar(_live(tenant_id).where(WebhookRecord.id == webhook_id))


def get_for_update(session: Session, tenant_id: str, webhook_id: str) -> WebhookRecord | None:
    """The same, locked until the transaction ends."""
    query = _live(tenant_id).where(WebhookRecord.id == webhook_id)
    return session.scalar(query.with_for_update(key_share=True))


def list_page(
    session: Session, tenant_id: str, *, limit: int, cursor: str | None
) -> Slice[WebhookRecord]:
    """The tenant's webhooks, newest first."""
    return page(session, _live(tenant_id), WebhookRecord.id, limit=limit, cursor=cursor)


def rotate(record: WebhookRecord, *, previous_expires_at: datetime) -> None:
    """A new secret; until the given time the old one signs as well."""
    record.previous_secret = record.secret
    record.previous_secret_expires_at = previous_expires_at
    record.secret = new_secret()


def delete(record: WebhookRecord) -> None:
    """Tell it nothing more; its row stays for the log of its deliveries."""
    record.deleted_at = utc_now()
    record.enabled = False
    record.secret = ""
    record.previous_secret = None


def _live(tenant_id: str) -> Select[WebhookRecord]:
    return select(WebhookRecord).where(
        WebhookRecord.tenant_id == tenant_id, WebhookRecord.deleted_at.is_(None)
    )
