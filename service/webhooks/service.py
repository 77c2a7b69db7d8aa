"""Webhooks: made, changed, tried out, and the log of what they were told."""

from __future__ import annotations

import json
from datetime import timedelta

from secateur.resources import (
    Delivery,
    DeliveryAttempt,
    Page,
    Webhook,
    WebhookCreate,
    WebhookUpdate,
)
from sqlalchemy.orm import Session

from persistence import quotas
from persistence.job_queue import database_time
from persistence.paging import Slice
from persistence.records import DeliveryAttemptRecord, DeliveryRecord, WebhookRecord
from persistence.settings import Settings
from persistence.webhooks import announcements, deliveries, subscriptions
from service.access.quotas import claim
from service.context import Backend
from service.paging import page_of
from service.problems import NotFound, ProblemError
from service.webhooks.receiver_url import check_url


class WebhookDisabled(ProblemError):
    """Nothing can be sent to it."""

    status = 409
    type = "webhook-disabled"
    title = "The webhook is switched off"


def create(session: Session, settings: Settings, tenant_id: str, request: WebhookCreate) -> Webhook:
    """A new webhook, with its secret; its URL was checked."""
    claim(session, settings, tenant_id, quotas.WEBHOOKS)
    record = subscriptions.add(
        session,
        tenant_id=tenant_id,
        url=request.url,
        event_types=request.event_types,
        description=request.description,
    )
    return _with_secret(record)


def get(backend: Backend, tenant_id: str, webhook_id: str) -> Webhook:
    """One webhook, without its secret."""
    with backend.database.session(read_only=True) as session:
        return _shown(_found(subscriptions.get(session, tenant_id, webhook_id), webhook_id))


def list_page(backend: Backend, tenant_id: str, *, limit: int, cursor: str | None) -> Page[Webhook]:
    """The tenant's webhooks, newest first."""
    with backend.database.session(read_only=True) as session:
        found = subscriptions.list_page(session, tenant_id, limit=limit, cursor=cursor)
    return page_of(found, _shown)


def change(backend: Backend, tenant_id: str, webhook_id: str, request: WebhookUpdate) -> Webhook:
    """Change what the request names."""
    if request.url is not None:
        check_url(request.url, backend.settings.webhook_allowed_networks)
    given = {name: getattr(request, name) for name in request.model_fields_set}
    with backend.database.session() as session:
        record = _locked(session, tenant_id, webhook_id)
        for name, value in given.items():
            if value is not None:
                setattr(record, name, value)
        if request.enabled:
            record.failing_since = None
        session.flush()
        return _shown(record)


def rotate(backend: Backend, tenant_id: str, webhook_id: str, grace_seconds: int) -> Webhook:
    """A new secret; the old one signs as well while the grace lasts."""
    with backend.database.session() as session:
        record = _locked(session, tenant_id, webhook_id)
        expires = database_time(session) + timedelta(seconds=grace_seconds)
        subscriptions.rotate(record, previous_expires_at=expires)
        session.flush()
        return _with_secret(record)


def delete(backend: Backend, tenant_id: str, webhook_id: str) -> None:
    """Tell it nothing more."""
    with backend.database.session() as session:
        subscriptions.delete(_locked(session, tenant_id, webhook_id))


def send_test(backend: Backend, tenant_id: str, webhook_id: str) -> Delivery:
    """Have a `webhook.test` message sent, whatever types the webhook wants."""
    with backend.database.session() as session:
        record = _able(_locked(session, tenant_id, webhook_id))
        made = announcements.add_delivery(
            session, record, announcements.TEST, {"webhook_id": record.id}
        )
        return _delivery(made, [])


def list_deliveries(
    backend: Backend,
    tenant_id: str,
    webhook_id: str,
    *,
    limit: int,
    cursor: str | None,
    status: str | None,
) -> Page[Delivery]:
    """The webhook's messages, newest first, with every attempt."""
    with backend.database.session(read_only=True) as session:
        _found(subscriptions.get(session, tenant_id, webhook_id), webhook_id)
        found: Slice[DeliveryRecord] = deliveries.list_page(
            session, tenant_id, webhook_id, limit=limit, cursor=cursor, status=status
        )
        attempts = deliveries.attempts_of(session, found.records)
    return page_of(found, lambda record: _delivery(record, attempts[record.id]))


def get_delivery(backend: Backend, tenant_id: str, webhook_id: str, delivery_id: str) -> Delivery:
    """One message with every attempt."""
    with backend.database.session(read_only=True) as session:
        record = _found_delivery(session, tenant_id, webhook_id, delivery_id)
        return _delivery(record, deliveries.attempts_of(session, [record])[record.id])


def redeliver(backend: Backend, tenant_id: str, webhook_id: str, delivery_id: str) -> Delivery:
    """Have a message sent again at once, with the id and the body it had."""
    with backend.database.session() as session:
        _able(_locked(session, tenant_id, webhook_id))
        record = _found_delivery(session, tenant_id, webhook_id, delivery_id)
        deliveries.redeliver(record, database_time(session))
        session.flush()
        return _delivery(record, deliveries.attempts_of(session, [record])[record.id])


def _locked(session: Session, tenant_id: str, webhook_id: str) -> WebhookRecord:
    return _found(subscriptions.get_for_update(session, tenant_id, webhook_id), webhook_id)


def _found(record: WebhookRecord | None, webhook_id: str) -> WebhookRecord:
    if record is None:
        raise NotFound("webhook", webhook_id, listing="/v1/webhooks")
    return record


def _found_delivery(
    session: Session, tenant_id: str, webhook_id: str, delivery_id: str
) -> DeliveryRecord:
    _found(subscriptions.get(session, tenant_id, webhook_id), webhook_id)
    record = deliveries.get(session, tenant_id, webhook_id, delivery_id)
    if record is None:
        raise NotFound("delivery", delivery_id, listing=f"/v1/webhooks/{webhook_id}/deliveries")
    return record


def _able(record: WebhookRecord) -> WebhookRecord:
    if not record.enabled:
        raise WebhookDisabled(
            "Nothing is sent to it.",
            hint='Switch it on first: `PATCH /v1/webhooks/{id}` with `{"enabled": true}`.',
        )
    return record


def _shown(record: WebhookRecord) -> Webhook:
    shown = {name: getattr(record, name) for name in Webhook.model_fields if name != "secret"}
    return Webhook.model_validate(shown)


def _with_secret(record: WebhookRecord) -> Webhook:
    return _shown(record).model_copy(update={"secret": record.secret})


def _delivery(record: DeliveryRecord, attempts: list[DeliveryAttemptRecord]) -> Delivery:
    return Delivery.model_validate(
        {
            **{name: getattr(record, name) for name in _PLAIN},
            "payload": json.loads(record.payload),
            "attempts": [DeliveryAttempt.model_validate(one) for one in attempts],
        }
    )


_PLAIN = tuple(name for name in Delivery.model_fields if name not in ("payload", "attempts"))
