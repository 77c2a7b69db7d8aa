"""`/v1/webhooks`."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from secateur.resources import (
    Delivery,
    Page,
    Webhook,
    WebhookCreate,
    WebhookRotation,
    WebhookUpdate,
)

from service import examples
from service.access.scopes import AdminRoute
from service.context import BackendOf, CallerOf
from service.idempotency import OnceOf
from service.paging import DeliveryCursor, Limit, WebhookCursor
from service.problems.documentation import problems
from service.problems.nul import refuse_nul
from service.webhooks import service
from service.webhooks.receiver_url import check_url

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=AdminRoute)

_NEW_SECRET = {**examples.WEBHOOK, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD..."}


@router.post(
    "",
    status_code=201,
    responses={
        201: examples.created("The webhook; `secret` is shown this once.", _NEW_SECRET),
        **problems(400, 401, 409, 413, 415, 422),
    },
)
def create_webhook(
    request: WebhookCreate,
    response: Response,
    caller: CallerOf,
    backend: BackendOf,
    once: OnceOf,
) -> Webhook:
    """Have the server tell a URL when jobs end and models are judged.

    Messages are signed as Standard Webhooks (https://www.standardwebhooks.com) has it and repeated
    for three days until they are answered with a 2xx.
    """
    refuse_nul(request)
    check_url(request.url, backend.settings.webhook_allowed_networks)
    response.headers["Cache-Control"] = "no-store"
    return once.create_with_secret(
        Webhook,
        request,
        lambda session: service.create(session, backend.settings, caller.tenant_id, request),
        collection="/v1/webhooks",
    )


@router.get("", responses={200: examples.page(examples.WEBHOOK), **problems(401, 422)})
def list_webhooks(
    caller: CallerOf, backend: BackendOf, limit: Limit = 50, cursor: WebhookCursor = None
) -> Page[Webhook]:
    """List webhooks, newest first; never their secrets."""
    return service.list_page(backend, caller.tenant_id, limit=limit, cursor=cursor)


@router.get("/{webhook_id}", responses={200: examples.body(examples.WEBHOOK), **problems(401, 404)})
def get_webhook(webhook_id: str, caller: CallerOf, backend: BackendOf) -> Webhook:
    """Get one webhook."""
    return service.get(backend, caller.tenant_id, webhook_id)


@router.patch(
    "/{webhook_id}",
    responses={200: examples.body(examples.WEBHOOK), **problems(400, 401, 404, 413, 415, 422)},
)
def update_webhook(
    webhook_id: str, request: WebhookUpdate, caller: CallerOf, backend: BackendOf
) -> Webhook:
    """Change a webhook; what is left out stays. `enabled: true` switches it on again."""
    refuse_nul(request)
    return service.change(backend, caller.tenant_id, webhook_id, request)


@router.delete(
    "/{webhook_id}",
    status_code=204,
    responses={204: {"description": "It is told nothing more."}, **problems(401, 404)},
)
def delete_webhook(webhook_id: str, caller: CallerOf, backend: BackendOf) -> None:
    """Delete a webhook; messages that wait are not sent."""
    service.delete(backend, caller.tenant_id, webhook_id)


@router.post(
    "/{webhook_id}/rotate-secret",
    responses={
        200: examples.body(_NEW_SECRET, "The webhook; the new `secret` is shown this once."),
        **problems(400, 401, 404, 413, 415, 422),
    },
)
def rotate_webhook_secret(
    webhook_id: str,
    request: WebhookRotation,
    response: Response,
    caller: CallerOf,
    backend: BackendOf,
) -> Webhook:
    """Replace the signing secret. For `grace_seconds` messages carry signatures by both."""
    response.headers["Cache-Control"] = "no-store"
    return service.rotate(backend, caller.tenant_id, webhook_id, request.grace_seconds)


@router.post(
    "/{webhook_id}/test",
    responses={
        200: examples.body({**examples.DELIVERY, "status": "pending"}, "The message to be sent."),
        **problems(401, 404, 409),
    },
)
def test_webhook(webhook_id: str, caller: CallerOf, backend: BackendOf) -> Delivery:
    """Send a `webhook.test` message; its delivery tells what came of it."""
    return service.send_test(backend, caller.tenant_id, webhook_id)


@router.get(
    "/{webhook_id}/deliveries",
    responses={200: examples.page(examples.DELIVERY), **problems(401, 404, 422)},
)
def list_deliveries(
    *,
    webhook_id: str,
    caller: CallerOf,
    backend: BackendOf,
    limit: Limit = 50,
    cursor: DeliveryCursor = None,
    status: Annotated[
        Literal["pending", "delivered", "failed"] | None, Query(description="Only these.")
    ] = None,
) -> Page[Delivery]:
    """List the messages of a webhook, newest first, with every attempt."""
    return service.list_deliveries(
        backend, caller.tenant_id, webhook_id, limit=limit, cursor=cursor, status=status
    )


@router.get(
    "/{webhook_id}/deliveries/{delivery_id}",
    responses={200: examples.body(examples.DELIVERY), **problems(401, 404)},
)
def get_delivery(
    webhook_id: str, delivery_id: str, caller: CallerOf, backend: BackendOf
) -> Delivery:
    """Get one message."""
    return service.get_delivery(backend, caller.tenant_id, webhook_id, delivery_id)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    responses={200: examples.body(examples.DELIVERY), **problems(401, 404, 409)},
)
def redeliver(webhook_id: str, delivery_id: str, caller: CallerOf, backend: BackendOf) -> Delivery:
    """Send a message again, whatever became of it: same id, same body, new signature."""
    return service.redeliver(backend, caller.tenant_id, webhook_id, delivery_id)
