"""Webhooks in the SDK: `Secateur().webhooks`.

Receivers verify messages with any library of Standard Webhooks and the secret that `create` gives.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from secateur.answers import pages, parse
from secateur.resources import Delivery, Webhook, WebhookEventType
from secateur.transport import Transport

_PATH = "/v1/webhooks"


class Webhooks:
    """The webhooks of the tenant. Methods raise what those of `secateur.client.Secateur` raise."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, url: str, *, event_types: Sequence[WebhookEventType] = (), description: str = ""
    ) -> Webhook:
        """Have the server tell `url` of these events, or of all; `secret` is shown this once."""
        body = {"url": url, "event_types": list(event_types), "description": description}
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        return parse(Webhook, self._send("POST", _PATH, json=body, headers=headers))

    def list(self) -> Iterator[Webhook]:
        """All webhooks, newest first."""
        return pages(self._transport, _PATH, Webhook, {})

    def get(self, webhook: Webhook | str) -> Webhook:
        """One webhook."""
        return parse(Webhook, self._send("GET", _of(webhook)))

    def update(self, webhook: Webhook | str, **changes: Any) -> Webhook:
        """Change fields of `secateur.resources.WebhookUpdate`, such as `enabled`."""
        return parse(Webhook, self._send("PATCH", _of(webhook), json=changes))

    def delete(self, webhook: Webhook | str) -> None:
        """Tell it nothing more."""
        self._send("DELETE", _of(webhook))

    def rotate_secret(self, webhook: Webhook | str, *, grace_seconds: int = 86_400) -> Webhook:
        """A new secret; for the grace time messages are signed by the old one as well."""
        body = {"grace_seconds": grace_seconds}
        return parse(Webhook, self._send("POST", f"{_of(webhook)}/rotate-secret", json=body))

    def test(self, webhook: Webhook | str) -> Delivery:
        """Have a `webhook.test` message sent; `delivery` tells what came of it."""
        return parse(Delivery, self._send("POST", f"{_of(webhook)}/test"))

    def deliveries(
        self, webhook: Webhook | str, *, status: str | None = None
    ) -> Iterator[Delivery]:
        """Messages, newest first: `pending`, `delivered`, `failed` or all."""
        return pages(self._transport, f"{_of(webhook)}/deliveries", Delivery, {"status": status})

    def delivery(self, webhook: Webhook | str, delivery: Delivery | str) -> Delivery:
        """One message, with every attempt."""
        return parse(Delivery, self._send("GET", _message(webhook, delivery)))

    def redeliver(self, webhook: Webhook | str, delivery: Delivery | str) -> Delivery:
        """Send a message again, whatever became of it."""
        path = f"{_message(webhook, delivery)}/redeliver"
        return parse(Delivery, self._send("POST", path))

    def _send(self, method: str, path: str, **options: Any) -> bytes:
        return self._transport.request(method, path, **options).content


def _of(webhook: Webhook | str) -> str:
    return f"{_PATH}/{webhook if isinstance(webhook, str) else webhook.id}"


def _message(webhook: Webhook | str, delivery: Delivery | str) -> str:
    return f"{_of(webhook)}/deliveries/{delivery if isinstance(delivery, str) else delivery.id}"
