"""Deliveries: due, tried, tried again, done or given up.

Whoever sends takes due deliveries for a while (`take_due` moves their next attempt into the
future), sends without a transaction, and notes the result. A sender that dies in between leaves
them due again, so a receiver may get a message twice, with the same `webhook-id`, and never not at
all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from persistence.paging import Slice, page
from persistence.records import DeliveryAttemptRecord, DeliveryRecord, WebhookRecord

RETRY_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Pauses before the second and later attempts (Standard Webhooks, "Retries"): three days in all."""
GIVE_UP_AFTER = timedelta(days=5)
"""A webhook that took nothing for so long is switched off."""
GONE = 410


@dataclass(frozen=True)
class Due:
    """A message to send now."""

    id: str
    webhook_id: str
    url: str
    secrets: tuple[str, ...]
    """Each signs; the second one while a rotation is under way."""
    payload: str


@dataclass(frozen=True)
class Attempt:
    """What came of sending."""

    status_code: int | None
    """Of the answer; None when there was none."""
    error: str
    """Why it counts as a failure; empty when it does not."""
    response: str
    elapsed_ms: int
    retry_after_seconds: float | None = None
    """What the receiver asked for."""

    @property
    def delivered(self) -> bool:
        """Whether the receiver has the message."""
        return not self.error


def take_due(session: Session, now: datetime, *, limit: int, hold_seconds: float) -> list[Due]:
    """The deliveries that are due, oldest first, held for so long.

    Deliveries of webhooks that were switched off or deleted meanwhile fail here.
    """
    rows = session.execute(
        select(DeliveryRecord, WebhookRecord)
        .join(WebhookRecord, WebhookRecord.id == DeliveryRecord.webhook_id)
        .where(DeliveryRecord.status == "pending", DeliveryRecord.next_attempt_at <= now)
        .order_by(DeliveryRecord.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=DeliveryRecord)
    ).all()
    taken = []
    for delivery, webhook in rows:
        if not webhook.enabled or webhook.deleted_at is not None:
            delivery.status, delivery.next_attempt_at = "failed", None
            continue
        delivery.next_attempt_at = now + timedelta(seconds=hold_seconds)
        taken.append(
            Due(
                id=delivery.id,
                webhook_id=webhook.id,
                url=webhook.url,
                secrets=_secrets(webhook, now),
                payload=delivery.payload,
            )
        )
    return taken


def any_due(session: Session, now: datetime) -> bool:
    """Whether there is anything to send; takes no lock."""
    query = select(DeliveryRecord.id).where(
        DeliveryRecord.status == "pending", DeliveryRecord.next_attempt_at <= now
    )
    return session.execute(query.limit(1)).first() is not None


def note_attempt(
    session: Session, delivery_id: str, attempt: Attempt, now: datetime, *, jitter: float = 0.0
) -> None:
    """Write down an attempt and what follows from it.

    Args:
        session: the transaction.
        delivery_id: the delivery.
        attempt: its outcome.
        now: the database's time.
        jitter: 0 to 1, so that many messages for one receiver do not come back all at once: the
            pause is prolonged by up to a fifth.
    """
    delivery = session.scalar(
        select(DeliveryRecord).where(DeliveryRecord.id == delivery_id).with_for_update()
    )
    if delivery is None:
        return
    delivery.attempts += 1
    session.add(
        DeliveryAttemptRecord(
            delivery_id=delivery_id,
            number=delivery.attempts,
            status_code=attempt.status_code,
            error=attempt.error,
            response=attempt.response,
            elapsed_ms=attempt.elapsed_ms,
        )
    )
    webhook = session.get_one(WebhookRecord, delivery.webhook_id)
    if attempt.delivered:
        delivery.status, delivery.delivered_at, delivery.next_attempt_at = "delivered", now, None
        webhook.failing_since = None
        return
    if delivery.status == "delivered":
        return  # sent twice, and one of them arrived
    webhook.failing_since = webhook.failing_since or now
    if attempt.status_code == GONE or now - webhook.failing_since >= GIVE_UP_AFTER:
        webhook.enabled = False
    if not webhook.enabled or delivery.attempts > len(RETRY_SECONDS):
        delivery.status, delivery.next_attempt_at = "failed", None
        return
    pause = RETRY_SECONDS[delivery.attempts - 1] * (1 + jitter / 5)
    asked = min(attempt.retry_after_seconds or 0.0, float(RETRY_SECONDS[-1]))
    delivery.next_attempt_at = now + timedelta(seconds=max(pause, asked))


def redeliver(delivery: DeliveryRecord, now: datetime) -> None:
    """Send it once more, at once, whatever became of it; retries that are left go on."""
    delivery.status, delivery.next_attempt_at = "pending", now


def get(
    session: Session, tenant_id: str, webhook_id: str, delivery_id: str
) -> DeliveryRecord | None:
    """One delivery of the tenant's webhook."""
    return session.scalar(_of(tenant_id, webhook_id).where(DeliveryRecord.id == delivery_id))


def list_page(
    session: Session,
    tenant_id: str,
    webhook_id: str,
    *,
    limit: int,
    cursor: str | None,
    status: str | None = None,
) -> Slice[DeliveryRecord]:
    """The deliveries of the tenant's webhook, newest first."""
    query = _of(tenant_id, webhook_id)
    if status is not None:
        query = query.where(DeliveryRecord.status == status)
    return page(session, query, DeliveryRecord.id, limit=limit, cursor=cursor)


def attempts_of(
    session: Session, deliveries: Sequence[DeliveryRecord]
) -> dict[str, list[DeliveryAttemptRecord]]:
    """Every attempt of these deliveries, in order."""
    found: dict[str, list[DeliveryAttemptRecord]] = {one.id: [] for one in deliveries}
    rows = session.scalars(
        select(DeliveryAttemptRecord)
        .where(DeliveryAttemptRecord.delivery_id.in_(found))
        .order_by(DeliveryAttemptRecord.id)
    )
    for row in rows:
        found[row.delivery_id].append(row)
    return found


def forget_old(session: Session, before: datetime) -> int:
    """Drop settled deliveries made before that, their attempts included; returns how many."""
    old = select(DeliveryRecord.id).where(
        DeliveryRecord.created_at < before, DeliveryRecord.status != "pending"
    )
    session.execute(
        delete(DeliveryAttemptRecord)
        .where(DeliveryAttemptRecord.delivery_id.in_(old))
        .execution_options(synchronize_session=False)
    )
    dropped = session.execute(
        delete(DeliveryRecord)
        .where(DeliveryRecord.created_at < before, DeliveryRecord.status != "pending")
        .returning(DeliveryRecord.id)
        .execution_options(synchronize_session=False)
    )
    return len(dropped.all())


def _secrets(webhook: WebhookRecord, now: datetime) -> tuple[str, ...]:
    expires = webhook.previous_secret_expires_at
    if webhook.previous_secret and expires is not None and expires > now:
        return (webhook.secret, webhook.previous_secret)
    return (webhook.secret,)


def _of(tenant_id: str, webhook_id: str) -> Select[DeliveryRecord]:
    return select(DeliveryRecord).where(
        DeliveryRecord.tenant_id == tenant_id, DeliveryRecord.webhook_id == webhook_id
    )
